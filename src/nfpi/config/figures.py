"""Settings and input files of figures, and their registry.

Each figure is computed and drawn by the module of its name in :mod:`nfpi.figures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, SerializeAsAny, create_model
from pydantic_core import CoreSchema

from nfpi.config.base import ALL_INHERITED, Name, NonNegativeFloat, PositiveFloat, PositiveInt, Seed, Settings
from nfpi.config.registry import Registry
from nfpi.runs import IMAGE_SET_FILES, INITIAL, MODEL_FILES, SPLITS, Layout, Run, format_weight

if TYPE_CHECKING:
    from nfpi.config.generation import NfaConfig
    from nfpi.config.priors import FixedPointSettings


class DatasetSettings(Protocol):
    """The part of the settings for one data set that figures use."""

    @property
    def nfa(self) -> NfaConfig:
        """Settings of latent augmentation."""


class RunsOfPreset(Protocol):
    """The part of a preset's settings that figures use (:class:`nfpi.config.Config`)."""

    @property
    def seeds(self) -> list[int]:
        """Seeds of the preset; figures of a single run use the first."""

    def run(self, dataset: str, flow: str, prior: str, weight: float, seed: int) -> Run:
        """Return the run of a flow."""

    def splits_of(self, dataset: str, seed: int) -> str:
        """Return the folder of the splits that runs of a seed use."""

    def for_dataset(self, dataset: str) -> DatasetSettings:
        """Return the settings with the overrides of a data set applied."""

    def fixed_point_settings(self, where: str, prior: str) -> FixedPointSettings:
        """Return the settings of a fixed-point prior; for others, raise a ConfigError that names `where`."""


Files = dict[str, list[str]]
"""Paths of the inputs of a figure, by their role."""


class FigureSettings(Settings):
    """Base class of the settings of figures. Subclasses name the input files."""

    title: ClassVar[str] = ""
    """title in reports"""
    caption: ClassVar[str] = ""
    """caption in reports, in reStructuredText"""
    pictures: ClassVar[tuple[str, ...]] = ()
    """names of the pictures; empty: one picture with the name of the figure"""
    has_table: ClassVar[bool] = False
    """whether the shown numbers are also written to a csv file with the name of the figure"""
    uses_gpu: ClassVar[bool] = False
    """whether it uses a GPU"""
    is_quick: ClassVar[bool] = False
    """whether it takes only seconds, and is drawn on the machine of the workflow instead of in a cluster job"""

    @classmethod
    def picture_names(cls, name: str) -> list[str]:
        """Return the names of the pictures of this figure, whose name is `name`."""
        return list(cls.pictures) or [name]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the input files.

        Raises:
            ConfigError: the figure cannot show the selected runs.
        """
        raise NotImplementedError

    def reads(self, config: RunsOfPreset) -> dict[str, Settings]:
        """Return other blocks of settings that the figure depends on, by name."""
        return {}

    def describe(self, config: RunsOfPreset) -> str:
        """Return the caption, completed with what depends on the preset: data set, counts, seed."""
        return self.caption


FIGURES = Registry("figure", "register_figure", ("settings", "inputs"))
"""The builder of a figure is its function `draw`, called with the settings and a :class:`nfpi.figures.FigureInputs`; it
returns a :class:`nfpi.figures.Drawn`."""


def _create_figures_model() -> type[Settings]:
    """Create a pydantic model with a field for each registered figure."""
    fields = {name: (FIGURES[name].settings | None, None) for name in FIGURES}
    model: type[Settings] = create_model("Figures", __base__=Settings, **fields)  # type: ignore[call-overload]
    return model


class _FigureMapping:
    """Annotation of a mapping from names of figures to their settings; null removes a figure, `"*": null` all."""

    def validate(self, figures: Any) -> Any:
        if not isinstance(figures, dict):
            return figures
        figures = {name: figure for name, figure in figures.items() if (name, figure) != (ALL_INHERITED, None)}
        return {name: figure for name, figure in _create_figures_model().model_validate(figures) if figure is not None}

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(_create_figures_model().__pydantic_core_schema__)
        described = handler.resolve_ref_schema(schema)
        described["properties"][ALL_INHERITED] = {"type": "null"}
        return schema


_mapping = _FigureMapping()
Figures = Annotated[dict[Name, SerializeAsAny[FigureSettings]], BeforeValidator(_mapping.validate), _mapping]


class AccuracyFigure(FigureSettings):
    """NF-Acc and CNN-Acc against λ, from a table; drawn whenever this table is made."""

    title = "accuracy against λ"
    caption = (
        "NF-Acc and CNN-Acc (%) of the test split against the weight λ of the repulsion; at λ = 0, left of the break,"
        " the Gaussians are not fitted by the iteration. Bars: one standard deviation over seeds, where there are "
        "several. A filled cross marks a λ at which all seeds diverged, an open one a λ at which some did."
    )
    is_quick = True

    table: Name = "table2"

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the csv file of the table."""
        return {"table": [layout.path(f"tables/{self.table}.csv")]}

    def describe(self, config: RunsOfPreset) -> str:
        """Complete the caption with the table and the seeds."""
        return f"{self.caption} From {self.table}; {_describe_seeds(config.seeds)}."


class EmbeddingFigure(FigureSettings):
    """Figure 1: t-SNE of images, and samples of their class Gaussians before and after the fixed-point iteration."""

    title = "figure 1"
    caption = (
        "(a) t-SNE of training images (dimensionless axes); (b) samples of Gaussians with the mean and the variances "
        "(figure1) or covariance (figure1_full) of each class in (a); (c) and (d): the same samples after the "
        "fixed-point iteration from (b), with a small and a large λ. Dots: images or samples, a colour for each "
        "class; open marks: class means; dashed ellipses: two standard deviations of (b); area × x to y: "
        "smallest and largest ratio, over the classes, of the area of a class's ellipse (not drawn) to that in (b). "
        "All panels have the same axes. figure1: the released update of diagonal covariances, without "
        "`pooled_mean_gaps`; its result depends on the scale of the embedding, and therefore on the number of "
        "images: compare λ only at equal numbers of images. figure1_full: full covariances and the exact update of "
        "Proposition 1, whose loss is bounded below only for λ up to K α e^(1/α) / 2 (55 for K = 10 classes and α = "
        "10); the panel of a diverged fit names its cause."
    )
    pictures = ("figure1", "figure1_full")
    has_table = True

    dataset: Name
    images: PositiveInt = 5000
    """number of embedded training images"""
    perplexity: PositiveFloat = 30.0
    seed: Seed = 0
    lambdas: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [1e3, 1e5]
    """small and large λ of the released update, without `pooled_mean_gaps`, with diagonal covariances"""
    lambdas_full: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [50.0, 1e3]
    """small and large λ of the exact update with full covariances; for 10 classes, its loss is bounded below
    up to λ = 55"""
    samples_per_class: Annotated[int, Field(ge=3)] = 200
    """number of samples of each Gaussian; the ellipse and its area are computed from the covariance of the samples"""

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the files of the training images."""
        return {"train": list_split_files(config, layout, self.dataset, "train")}

    def describe(self, config: RunsOfPreset) -> str:
        """Complete the caption with the numbers of images and samples, and the seed."""
        return (
            f"{self.caption} {self.dataset}: up to {self.images} training images, {self.samples_per_class} samples a "
            f"class, perplexity {self.perplexity:g}, seed {self.seed}."
        )


class FlowFigure(FigureSettings):
    """Base class of figures of one flow, trained with the first seed."""

    uses_gpu = True

    dataset: Name
    flow: Name = "mef"
    prior: Name = "fpi"
    weight: NonNegativeFloat = Field(0.0, alias="lambda")
    """λ of the run"""

    def list_model_files(self, config: RunsOfPreset, layout: Layout) -> list[str]:
        """Return the files of the flow's model."""
        run = config.run(self.dataset, self.flow, self.prior, self.weight, config.seeds[0])
        return [f"{layout.of(run)}/model/{name}" for name in MODEL_FILES.values()]

    def describe_run(self, config: RunsOfPreset) -> str:
        """Describe the run of the flow in one line."""
        return f"{self.dataset}, {self.flow}, {self.prior}, λ = {format_weight(self.weight)}, seed {config.seeds[0]}"


class AugmentationFigure(FlowFigure):
    """Figure 2: images beside their latent-augmented variants."""

    title = "figure 2"
    caption = (
        "Training images (left) and latent-augmented variants of them (right): each latent moves a share s of the way "
        "towards another latent of its class, in the span of the class's leading PCA axes. Below a variant: Δ, the "
        "root-mean-square difference from the original in 8-bit levels. For a flow on latents of an autoencoder, "
        "all images, including the originals, are outputs of the decoder."
    )
    has_table = True

    classes: Annotated[list[str], Field(min_length=1)]
    """names of classes, or their indices as strings"""
    images_per_class: PositiveInt = 1
    variants: PositiveInt = 3

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the files of the training images and of the model."""
        return {
            "train": list_split_files(config, layout, self.dataset, "train"),
            "model": self.list_model_files(config, layout),
        }

    def reads(self, config: RunsOfPreset) -> dict[str, Settings]:
        """Return the settings of latent augmentation."""
        return {"nfa": config.for_dataset(self.dataset).nfa}

    def describe(self, config: RunsOfPreset) -> str:
        """Complete the caption with the strength of the augmentation, and the run."""
        nfa = config.for_dataset(self.dataset).nfa
        return f"{self.caption} {self.describe_run(config)}: {nfa.axes} axes, {describe_step(nfa)}."


def describe_step(nfa: NfaConfig) -> str:
    """Return the formula of s, the share of the way that a latent moves towards its partner."""
    if nfa.law == "fixed":
        return f"s = {nfa.strength:g}"
    return f"s = {nfa.strength:g} u, u ~ Beta({nfa.concentration:g}, {nfa.concentration:g})"


class SamplesFigure(FlowFigure):
    """Class-conditional samples at several temperatures."""

    title = "samples"
    caption = (
        "Images drawn from the flow, a column for each class and a block of rows for each temperature T "
        "(z = μ + T Σ^(1/2) ε). Images at the same place in different blocks have the same noise ε."
    )

    classes: PositiveInt = 10
    """number of classes shown, from the first"""
    noises: PositiveInt = 3
    """images per class and temperature"""
    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the files of the model."""
        return {"model": self.list_model_files(config, layout)}

    def describe(self, config: RunsOfPreset) -> str:
        """Complete the caption with the run."""
        return f"{self.caption} {self.describe_run(config)}; images per class and temperature: {self.noises}."


class ResidualsFigure(FigureSettings):
    """Residual of the fixed-point iteration against the iteration."""

    title = "residuals of the fixed point"
    caption = (
        "Change of the mean (top) and of the variances (bottom) of a class in each fixed-point iteration: the largest "
        "Euclidean norm over the classes, in units of the latents (squared for variances); a quantity that is not "
        "fitted has no panel. The mark at the end of the line of each λ says how the iteration ended. Dashed: the "
        "tolerance at which the iteration ends."
    )
    is_quick = True

    dataset: Name
    flow: Name = "mef"
    prior: Name = "fpi"
    lambdas: Annotated[list[PositiveFloat], Field(min_length=1)]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the fixed_point.csv of each λ."""
        config.fixed_point_settings("figures.residuals", self.prior)
        runs = [config.run(self.dataset, self.flow, self.prior, weight, config.seeds[0]) for weight in self.lambdas]
        return {"iterations": [f"{layout.of(run)}/fit/fixed_point.csv" for run in runs]}

    def reads(self, config: RunsOfPreset) -> dict[str, Settings]:
        """Return the settings of the fits, for tolerance and maximum number of iterations."""
        return {"prior": config.fixed_point_settings("figures.residuals", self.prior)}

    def describe(self, config: RunsOfPreset) -> str:
        """Complete the caption with the runs."""
        return f"{self.caption} {self.dataset}, {self.flow}, {self.prior}, seed {config.seeds[0]}."


DIVERGENCE_CAUSES = {
    "A (not positive definite)": ("A", "matrix A not positive"),
    "repulsion kernel": ("κ", "kernel κ not finite"),
    "KLDs (below rounding error)": ("r", "KLDs below rounding error"),
    "mean": ("μ", "mean μ not finite"),
    "variance": ("v", "variance v not positive"),
}
"""Letter and meaning of each quantity whose failure may end a diverging iteration with diagonal covariances."""


class ConvergenceFigure(FigureSettings):
    """Map of the convergence of the fixed-point iteration on initial latents: λ × update × scale × fitted moments."""

    title = "map of convergence"
    caption = (
        "Iterations until the Gaussians of the latents of an initial state converge, by the weight λ of the repulsion, "
        "the update, the scale π of the divergences (Eqs. 9, 10) and what is fitted; if only means are fitted, Σ = I. "
        "Grey cells diverged, and the letter names the quantity that failed first: "
        f"{'; '.join(map(': '.join, DIVERGENCE_CAUSES.values()))}. "
        "Hatched cells did not converge in the maximum number of iterations."
    )
    has_table = True

    dataset: Name
    flow: Name = "mef"
    alpha: PositiveFloat = 10.0
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=1)] = [
        *(1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6),
    ]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Return the statistics of the latents of an initial state (start: data), and its Gaussians."""
        where = {"dataset": self.dataset, "flow": self.flow, "start": "data", "seed": str(config.seeds[0])}
        folder = layout.path(INITIAL, **where)
        return {"statistics": [f"{folder}/statistics.safetensors"], "initial": [f"{folder}/prior.safetensors"]}

    def describe(self, config: RunsOfPreset) -> str:
        """Complete the caption with the initial state."""
        return f"{self.caption} {self.dataset}, {self.flow}, α = {self.alpha:g}, seed {config.seeds[0]}."


def list_split_files(config: RunsOfPreset, layout: Layout, dataset: str, *splits: str) -> list[str]:
    """Return the files of the given splits of a data set, as used by runs of the first seed."""
    folder = layout.path(SPLITS, dataset=dataset, splits=config.splits_of(dataset, config.seeds[0]))
    return [f"{folder}/{split}/{file}" for split in splits for file in IMAGE_SET_FILES.values()]


def _describe_seeds(seeds: list[int]) -> str:
    """Describe the seeds of a preset."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"


FIGURES.register("accuracy_against_weight", AccuracyFigure, "nfpi.figures.accuracy_against_weight:draw")
FIGURES.register("figure1", EmbeddingFigure, "nfpi.figures.figure1:draw")
FIGURES.register("figure2", AugmentationFigure, "nfpi.figures.figure2:draw")
FIGURES.register("samples", SamplesFigure, "nfpi.figures.samples:draw")
FIGURES.register("residuals", ResidualsFigure, "nfpi.figures.residuals:draw")
FIGURES.register("convergence_map", ConvergenceFigure, "nfpi.figures.convergence_map:draw")


def select_table_figures(figures: dict[str, FigureSettings], table: str) -> Iterator[str]:
    """Yield the names of the figures that are drawn whenever a table is made."""
    for name, figure in figures.items():
        if isinstance(figure, AccuracyFigure) and figure.table == table:
            yield name
