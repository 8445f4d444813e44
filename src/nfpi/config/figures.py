"""Figures: the settings of each, the files that it is drawn from, and the registry that presets select from by name.

The module of the same name in :mod:`nfpi.figures` computes and draws it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, SerializeAsAny, create_model
from pydantic_core import CoreSchema

from nfpi.config.base import Name, NonNegativeFloat, PositiveFloat, PositiveInt, Seed, Settings
from nfpi.config.registry import Registry
from nfpi.runs import INITIAL, SPLITS, Layout, Run, format_weight

if TYPE_CHECKING:
    from nfpi.config.generation import NfaConfig
    from nfpi.config.priors import FixedPointSettings


class ForDataset(Protocol):
    """Settings as they are for one data set."""

    @property
    def nfa(self) -> NfaConfig:
        """Of the latent augmentation."""


class RunsOfPreset(Protocol):
    """What a figure asks of the settings of a preset (:class:`nfpi.config.Config`)."""

    @property
    def seeds(self) -> list[int]:
        """Figures show runs of the first."""

    def run(self, dataset: str, flow: str, prior: str, weight: float, seed: int) -> Run:
        """The run of a flow."""

    def splits_of(self, dataset: str, seed: int) -> str:
        """Where the splits lie that runs of a seed see."""

    def for_dataset(self, dataset: str) -> ForDataset:
        """The settings with the data set's own overrides."""

    def fixed_point_settings(self, where: str, prior: str) -> FixedPointSettings:
        """Settings of a prior that is fitted by iteration; ConfigError, which names `where`, if it is not."""


Files = dict[str, list[str]]
"""Paths, by what they are to the figure."""


class FigureSettings(Settings):
    """What a figure shows. Subclasses say from which files it is drawn."""

    title: ClassVar[str] = ""
    """of the figure, in reports"""
    caption: ClassVar[str] = ""
    """of its pictures, in reports; reStructuredText"""
    pictures: ClassVar[tuple[str, ...]] = ()
    """names of its pictures; none: it is one picture, with the figure's own name"""
    has_table: ClassVar[bool] = False
    """whether the numbers that it shows are written too, as csv with the figure's name"""
    uses_gpu: ClassVar[bool] = False
    """whether a GPU makes it faster"""
    is_quick: ClassVar[bool] = False
    """whether it takes seconds: it is drawn where the workflow runs then, not in a job of a cluster"""

    @classmethod
    def picture_names(cls, name: str) -> list[str]:
        """Names of the pictures of the figure `name`."""
        return list(cls.pictures) or [name]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Name the files that it is drawn from.

        Raises:
            ConfigError: the runs that it shows do not suit it.
        """
        raise NotImplementedError

    def reads(self, config: RunsOfPreset) -> dict[str, Settings]:
        """Name the settings of other families that it is drawn by."""
        return {}

    def describe(self, config: RunsOfPreset) -> str:
        """Return the caption with what depends on the preset: the data set, how many, and the seed."""
        return self.caption


FIGURES = Registry("figure")
"""Builders are called as `(settings, inputs)`, a :class:`nfpi.figures.FigureInputs`, and return a
:class:`nfpi.figures.Drawn`."""


def _form() -> type[Settings]:
    """A model with a field for each registered figure."""
    fields = {name: (FIGURES[name].settings | None, None) for name in FIGURES}
    return create_model("Figures", __base__=Settings, **fields)  # type: ignore[call-overload]


class _ByName:
    """A mapping from names of figures to their settings; null leaves a figure out."""

    def validate(self, figures: Any) -> Any:
        if not isinstance(figures, dict):
            return figures
        return {name: figure for name, figure in _form().model_validate(figures) if figure is not None}

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(_form().__pydantic_core_schema__)


_by_name = _ByName()
Figures = Annotated[dict[Name, SerializeAsAny[FigureSettings]], BeforeValidator(_by_name.validate), _by_name]


class AccuracyFigure(FigureSettings):
    """NF-Acc and CNN-Acc against λ, from a table; it is made along with that table."""

    title = "accuracy against λ"
    caption = (
        "NF-Acc and CNN-Acc (%) of the test split against the weight λ of the repulsion; λ = 0, left of the break, "
        "keeps the initial Gaussians. Bars: one standard deviation over seeds, where there are several. A cross marks "
        "a λ whose fit diverged."
    )
    is_quick = True

    table: Name = "table2"

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """The table."""
        return {"table": [layout.path(f"tables/{self.table}.csv")]}

    def describe(self, config: RunsOfPreset) -> str:
        """With the table and its seeds."""
        return f"{self.caption} From {self.table}; {_seeds(config.seeds)}."


class EmbeddingFigure(FigureSettings):
    """Figure 1: t-SNE of images, and samples of class Gaussians there before and after the fixed point."""

    title = "figure 1"
    caption = (
        "(a) t-SNE of training images (dimensionless axes), (b) samples of the Gaussians with the mean and the "
        "variances of each class there, (c), (d) the same samples after the fixed-point iteration from (b), small and "
        "large λ. Dots: images or samples, a colour for each class; open marks: class means; dashed ellipses: two "
        "standard deviations of (b); area: of a class's ellipse, as a multiple of that in (b), the smallest and the "
        "largest of all classes. "
        "All panels have the same axes. figure1: the released update of diagonal covariances, whose result depends on "
        "the scale of the embedding, and with it on the number of images: λ compares between figures of one size only. "
        "figure1_full: full "
        "covariances and the exact update of Proposition 1, whose loss is bounded below only for λ up to "
        "K α e^(1/α) / 2 (55 for K = 10 classes and α = 10); the panel of a fit that diverged says what was lost."
    )
    pictures = ("figure1", "figure1_full")
    has_table = True

    dataset: Name
    images: PositiveInt = 5000
    """training images that are embedded"""
    perplexity: PositiveFloat = 30.0
    seed: Seed = 0
    lambdas: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [1e3, 1e5]
    """small and large λ of the released update with variances"""
    lambdas_full: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [50.0, 1e3]
    """small and large λ of the exact update with full covariances; 55 is the bound for ten classes"""
    samples_per_class: PositiveInt = 200

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """The training images."""
        return {"train": split_files(config, layout, self.dataset, "train")}

    def describe(self, config: RunsOfPreset) -> str:
        """With the numbers of images and samples, and the seed."""
        return (
            f"{self.caption} {self.dataset}: up to {self.images} training images, {self.samples_per_class} samples a "
            f"class, perplexity {self.perplexity:g}, seed {self.seed}."
        )


class FlowFigure(FigureSettings):
    """A figure of one run of a flow, the first seed's."""

    uses_gpu = True

    dataset: Name
    flow: Name = "mef"
    prior: Name = "fpi"
    weight: NonNegativeFloat = Field(0.0, alias="lambda")
    """λ of the run"""

    def model(self, config: RunsOfPreset, layout: Layout) -> list[str]:
        """The files of the run's model."""
        run = config.run(self.dataset, self.flow, self.prior, self.weight, config.seeds[0])
        return [f"{layout.of(run)}/model/{name}" for name in ("config.json", "model.safetensors")]

    def of_run(self, config: RunsOfPreset) -> str:
        """The run, in words."""
        return f"{self.dataset}, {self.flow}, {self.prior}, λ = {format_weight(self.weight)}, seed {config.seeds[0]}"


class AugmentationFigure(FlowFigure):
    """Figure 2: images beside latent-augmented variants."""

    title = "figure 2"
    caption = (
        "Training images (left) and latent-augmented variants of them (right): each latent moves a share s of the way "
        "towards another one of its class, in the span of the class's leading PCA axes. Below a variant: Δ, the "
        "root-mean-square difference from the original in levels of 255. Flows on latents of an autoencoder: "
        "all images are decoded by it, the originals too."
    )
    has_table = True

    classes: Annotated[list[str], Field(min_length=1)]
    """names or indices of classes"""
    images_per_class: PositiveInt = 1
    variants: PositiveInt = 3

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """The training images, and the model."""
        return {"train": split_files(config, layout, self.dataset, "train"), "model": self.model(config, layout)}

    def reads(self, config: RunsOfPreset) -> dict[str, Settings]:
        """How variants are made."""
        return {"nfa": config.for_dataset(self.dataset).nfa}

    def describe(self, config: RunsOfPreset) -> str:
        """With the strength of the perturbation, and the run."""
        nfa = config.for_dataset(self.dataset).nfa
        return f"{self.caption} {self.of_run(config)}: {nfa.axes} axes, {share_of_the_way(nfa)}."


def share_of_the_way(nfa: NfaConfig) -> str:
    """How far a latent moves towards its partner, as a formula."""
    if nfa.law == "fixed":
        return f"s = {nfa.strength:g}"
    return f"s = {nfa.strength:g} u, u ~ Beta({nfa.concentration:g}, {nfa.concentration:g})"


class SamplesFigure(FlowFigure):
    """Class-conditional samples at several temperatures."""

    title = "samples"
    caption = (
        "Images drawn from the flow, a column for each class, a block of rows for each temperature T "
        "(z = μ + T Σ^(1/2) ε) and in it a row for each noise ε. Every image of a block has a noise of its own; all "
        "blocks have the same ones."
    )

    classes: PositiveInt = 10
    """the first of them, up to this number"""
    noises: PositiveInt = 3
    """images of each class at each temperature"""
    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """The model."""
        return {"model": self.model(config, layout)}

    def describe(self, config: RunsOfPreset) -> str:
        """With the run."""
        return f"{self.caption} {self.of_run(config)}; noises: {self.noises}."


class ResidualsFigure(FigureSettings):
    """Residual of the fixed-point iteration against the iteration."""

    title = "residuals of the fixed point"
    caption = (
        "Largest change over the classes of a mean (top) and of a variance (bottom) in each fixed-point iteration, "
        "Euclidean norm in units of the latents (their square for variances), a line for each λ; the mark at its end "
        "says how the iteration ended. Dashed: the tolerance at which it ends."
    )
    is_quick = True

    dataset: Name
    flow: Name = "mef"
    prior: Name = "fpi"
    lambdas: Annotated[list[PositiveFloat], Field(min_length=1)]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """The iterations of each λ."""
        config.fixed_point_settings("figures.residuals", self.prior)
        runs = [config.run(self.dataset, self.flow, self.prior, weight, config.seeds[0]) for weight in self.lambdas]
        return {"iterations": [f"{layout.of(run)}/fit/fixed_point.csv" for run in runs]}

    def reads(self, config: RunsOfPreset) -> dict[str, Settings]:
        """Settings of the fits: the tolerance and the number of iterations allowed."""
        return {"prior": config.fixed_point_settings("figures.residuals", self.prior)}

    def describe(self, config: RunsOfPreset) -> str:
        """With the runs."""
        return f"{self.caption} {self.dataset}, {self.flow}, {self.prior}, seed {config.seeds[0]}."


LOST = {
    "A (definiteness)": ("A", "matrix A not positive"),
    "repulsion kernel": ("κ", "kernel κ not finite"),
    "divergences (rounding)": ("r", "KLDs below rounding error"),
    "mean": ("μ", "mean μ not finite"),
    "variance": ("v", "variance v not positive"),
}
"""Letter and meaning of what a fixed-point iteration with variances loses where it diverges."""


class ConvergenceFigure(FigureSettings):
    """Where the fixed-point iteration converges: λ × update × scale × what is fitted, on initial latents."""

    title = "map of convergence"
    caption = (
        "Iterations until the Gaussians of the latents of an initial state converge, by the weight λ of the repulsion, "
        "the update, the scale π of the divergences (Eqs. 9, 10) and what is fitted; means alone under Σ = I. Grey "
        f"cells diverged, and the letter says what was lost first: {'; '.join(map(': '.join, LOST.values()))}. "
        "Hatched cells did not converge in the iterations allowed."
    )
    has_table = True

    dataset: Name
    flow: Name = "mef"
    alpha: PositiveFloat = 10.0
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=1)] = [
        *(1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6),
    ]

    def files(self, config: RunsOfPreset, layout: Layout) -> Files:
        """Statistics of the latents of an initial state at the class means and variances, and its Gaussians."""
        where = {"dataset": self.dataset, "flow": self.flow, "start": "data", "seed": str(config.seeds[0])}
        folder = layout.path(INITIAL, **where)
        return {"statistics": [f"{folder}/statistics.safetensors"], "initial": [f"{folder}/prior.safetensors"]}

    def describe(self, config: RunsOfPreset) -> str:
        """With the initial state."""
        return f"{self.caption} {self.dataset}, {self.flow}, α = {self.alpha:g}, seed {config.seeds[0]}."


def split_files(config: RunsOfPreset, layout: Layout, dataset: str, *splits: str) -> list[str]:
    """The files of some splits of a data set, those that runs of the first seed see."""
    folder = layout.path(SPLITS, dataset=dataset, splits=config.splits_of(dataset, config.seeds[0]))
    return [f"{folder}/{split}/{file}" for split in splits for file in IMAGE_SET]


def _seeds(seeds: list[int]) -> str:
    """The seeds of a preset, in words."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {', '.join(map(str, seeds))}"


IMAGE_SET = ("images.npy", "labels.npy", "meta.json")
"""Files of a set of labelled images."""


FIGURES.register("accuracy_against_weight", AccuracyFigure, "nfpi.figures.accuracy_against_weight:draw")
FIGURES.register("figure1", EmbeddingFigure, "nfpi.figures.figure1:draw")
FIGURES.register("figure2", AugmentationFigure, "nfpi.figures.figure2:draw")
FIGURES.register("samples", SamplesFigure, "nfpi.figures.samples:draw")
FIGURES.register("residuals", ResidualsFigure, "nfpi.figures.residuals:draw")
FIGURES.register("convergence_map", ConvergenceFigure, "nfpi.figures.convergence_map:draw")


def figures_of_table(figures: dict[str, FigureSettings], table: str) -> Iterator[str]:
    """Names of the figures that are made along with a table."""
    for name, figure in figures.items():
        if isinstance(figure, AccuracyFigure) and figure.table == table:
            yield name
