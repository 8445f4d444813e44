"""Settings of tables, of the experiments in them, and of figures, each of which is a module of :mod:`nfpi.figures`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from nfpi.config.base import UNIQUE, Augmentation, ConfigError, Name, NonNegativeFloat, Settings
from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.metrics import VALIDATION_PREFIX, MeasuredModel, metric
from nfpi.config.priors import PRIORS, PriorBlock
from nfpi.config.registry import NamedBlockRegistry
from nfpi.runs import OWN, Layout, format_weight, get_variants_folder

if TYPE_CHECKING:
    from nfpi.config.settings import Config


def _check_validation_metric(name: str) -> str:
    if metric(f"{VALIDATION_PREFIX}{name}").higher_is_better is None:
        raise ValueError(f"expected a metric that sets higher_is_better, received {name}")
    return name


Refit = Literal["moments", "prior"]
"""How the Gaussians of a trained flow are estimated again (:data:`nfpi.runs.REFITS`)."""
MetricName = Annotated[str, AfterValidator(lambda name: metric(name).name)]


class Experiment(Settings):
    """A data set, a prior with a list of λ, and a classifier: one table row per λ, or only that of the best λ."""

    label: str = ""
    """name of the row; empty: none is printed, and claims name the row by its prior or classifier"""
    dataset: Name
    flow: Name = "mef"
    """backbone, one of `flows:`"""
    prior: Name | None = "fpi"
    """one of `priors:`; None: no flow, only a classifier trained on real images. A flow of kind `trained` has its own
    prior, and no lambdas"""
    lambdas: list[NonNegativeFloat] = []
    """weights λ of the repulsion (Eq. 4); at 0 a fixed-point prior keeps its initial Gaussians; empty: no λ"""
    relative_weights: list[NonNegativeFloat] = []
    """values of s₀ in place of `lambdas`: λ = s₀ α K D e^(1/α) / 2 for α of the prior and K classes of D values"""
    refit: Refit | None = None
    """how the Gaussians are estimated again from the training latents after the training, which the row shares with the
    one without it. moments: means and variances of each class; prior: by the prior's own method with its λ; None: they
    are not"""
    classifier: Name | None = "resnet18"
    """one of `classifiers:`; None: NF-Acc only"""
    augmentation: Augmentation = "standard"
    """augmentation of the real images that a classifier is trained on. standard: the classifier's setting `standard`;
    nfa: latent augmentation by the flow; noise: each latent is moved as far as by nfa, but in a random direction;
    standard+nfa, standard+noise: both; none: no augmentation"""

    @property
    def weights(self) -> list[float]:
        """λ of the runs, ascending; [0] for a prior without λ."""
        if self.prior is None:
            return []
        return sorted(set(self.lambdas)) or [0.0]

    @property
    def uses_variants(self) -> bool:
        """Whether the classifier is trained on latent augmentations."""
        return get_variants_folder(self.augmentation) is not None

    @property
    def models(self) -> list[MeasuredModel]:
        """Models whose metrics the rows show.

        :class:`nfpi.config.settings.Config` checks that the experiments without a prior and those with latent
        augmentations have a classifier with `train_on: real`, and no others.
        """
        if self.prior is None or (self.classifier is not None and self.uses_variants):
            return ["real"]
        return ["flow"] if self.classifier is None else ["flow", "generated", "reference", "samples"]

    def choose_own_prior(self, where: str, weight: float) -> Experiment:
        """Return the experiment with the prior and λ of the trained model that is its flow.

        Raises:
            ConfigError: the experiment, with the key `where`, names another prior, or other λ.
        """
        weights = [weight] if weight else []
        prior = self.prior if "prior" in self.model_fields_set else OWN
        if prior != OWN or self.relative_weights or self.lambdas not in ([], weights):
            received = ", ".join(sorted(self.model_fields_set & {"prior", "lambdas", "relative_weights"}))
            raise ConfigError(
                f"{where}: expected neither prior nor lambdas for flow '{self.flow}', a trained model with its own, "
                f"received {received}",
            )
        return self.model_copy(update={"prior": OWN, "lambdas": weights})

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        if self.lambdas and self.relative_weights:
            raise ValueError("lambdas, relative_weights: expected one of them, received both")
        given = self.lambdas or self.relative_weights or self.refit
        if self.prior is None and (given or self.uses_variants or self.classifier is None):
            raise ValueError("without a prior an experiment has a classifier, no lambdas, refit, nfa or noise")
        return self


class TableSettings(Settings):
    """Title and contents of a table."""

    title: str = ""
    best_only: bool = False
    """whether there is one row per experiment, at the λ that is best on the validation split, or one per λ"""
    best_by: Annotated[MetricName, AfterValidator(_check_validation_metric)] | None = None
    """metric that selects λ on the validation split; None: nf_acc, or top1 for classifiers trained on real images"""
    metrics: Annotated[list[MetricName], Field(min_length=1), UNIQUE] = ["nf_acc", "cnn_acc"]
    """columns of the table"""
    literature: list[str] = []
    """rows of cited work; known numbers are in workflow/reference/paper.csv, under these names"""


class Table(TableSettings):
    """A table of the paper as a list of experiments."""

    experiments: Annotated[list[Experiment], Field(min_length=1)]

    @model_validator(mode="after")
    def _check_best_by(self) -> Table:
        """Check that every experiment with a choice of λ measures the metric that selects λ."""
        for experiment in self.experiments if self.best_by is not None else ():
            has_choice = len(set(experiment.lambdas)) > 1 or len(set(experiment.relative_weights)) > 1
            measured = metric(f"{VALIDATION_PREFIX}{self.best_by}").model
            if has_choice and measured not in (None, *experiment.models):
                raise ValueError(
                    "best_by: expected a metric that all its experiments measure (top1 for classifiers with train_on: "
                    f"real), received {self.best_by}"
                )
        return self


class FigureSettings(Settings):
    """Base class of the settings of figures. Subclasses name the input files.

    A figure with a setting `table` is drawn whenever this table is made.
    """

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

    @classmethod
    def output_names(cls, name: str) -> dict[str, str]:
        """Return the names of the files of this figure: its pictures as PNG and PDF, and its table, if any, as csv."""
        names = {
            f"{picture}_{end}": f"{picture}.{end}" for end in ("png", "pdf") for picture in cls.picture_names(name)
        }
        return names | ({"table": f"{name}.csv"} if cls.has_table else {})

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the paths of the input files, by their role.

        Raises:
            ConfigError: the figure cannot show the selected runs.
        """
        raise NotImplementedError

    def reads(self, config: Config) -> dict[str, Settings]:
        """Return other blocks of settings that the figure depends on, by name."""
        return {}

    def describe(self, config: Config) -> str:
        """Return the caption, completed with what depends on the preset: data set, counts, seed."""
        return self.caption


FIGURES = NamedBlockRegistry("figure", ("settings", "inputs"), package="nfpi.figures")
"""The builder of a figure is a function, called with the settings and a :class:`nfpi.figures.FigureInputs`; it returns
a :class:`nfpi.figures.Drawn`."""
Figures = Annotated[dict[Name, SerializeAsAny[FigureSettings]], BeforeValidator(FIGURES.validate), FIGURES]


def check_experiment(
    where: str,
    experiment: Experiment,
    priors: Mapping[str, PriorBlock],
    classifiers: Mapping[str, ClassifierConfig],
) -> None:
    """Raise ConfigError if the prior, λ, refit and classifier of an experiment, with the key `where`, do not fit."""
    if experiment.prior not in (None, OWN):
        method = PRIORS[priors[experiment.prior].method]
        uses_weight = method.traits["uses_weight"]
        if uses_weight != bool(experiment.lambdas):
            expected = f"expected {'at least one' if uses_weight else 'none'} for prior '{experiment.prior}'"
            received = ", ".join(map(format_weight, experiment.lambdas)) or "none"
            cure = ": a method without λ is registered with uses_weight=False" if method.extension else ""
            raise ConfigError(f"{where}: lambdas: {expected} on '{experiment.dataset}', received {received}{cure}")
        if experiment.refit == "prior" and method.traits["learned"]:
            expected = f"expected moments for prior '{experiment.prior}', which is learned along with the flow"
            raise ConfigError(f"{where}: refit: {expected}, received prior")
    if experiment.classifier is None:
        return
    needed = "needs a prior and augmentation: standard"
    fits = experiment.prior is not None and experiment.augmentation == "standard"
    if classifiers[experiment.classifier].train_on == "real":
        needed = "needs a prior if its augmentation has nfa or noise, and none otherwise"
        fits = (experiment.prior is not None) == experiment.uses_variants
    if not fits:
        raise ConfigError(f"{where}: classifier '{experiment.classifier}' {needed}")
