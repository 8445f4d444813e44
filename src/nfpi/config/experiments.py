"""Which runs stand in a table, and what of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from nfpi.config.base import NULL_LEAVES_OUT, Augmentation, ConfigError, Name, NonNegativeFloat, Settings
from nfpi.config.metrics import OF_VALIDATION, metric
from nfpi.runs import variants_of


def _known_metric(name: str) -> str:
    try:
        return metric(name).name
    except ConfigError as error:
        raise ValueError(str(error)) from None


def _once_each(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"expected each metric once, received {twice} {names.count(twice)} times")
    return names


def _measured_on_validation(name: str) -> str:
    try:
        entry = metric(f"{OF_VALIDATION}{name}")
    except ConfigError:
        raise ValueError(f"expected a metric that is measured on the validation split too, received {name}") from None
    if entry.higher_is_better is None:
        raise ValueError(f"expected a metric of which higher or lower is better, received {name}")
    return name


MetricName = Annotated[str, AfterValidator(_known_metric)]


class Experiment(Settings):
    """One data set, a prior for a list of λ, and a classifier: a row of a table for each λ, or for the best."""

    label: str = ""
    """name of the row; empty: the prior's"""
    dataset: Name
    flow: Name = "mef"
    """the backbone, one of `flows:`"""
    prior: Name | None = "fpi"
    """None: no flow, a classifier of real images alone"""
    lambdas: list[NonNegativeFloat] = []
    """weights λ of the repulsion (Eq. 4); 0 keeps the initial Gaussians of a fixed point; none: a prior without λ"""
    classifier: Name | None = "resnet18"
    """what learns from the images; None: NF-Acc only"""
    augmentation: Augmentation = "standard"
    """of a classifier of real images: none, its standard ones, latent ones by the flow (nfa; or noise of the same size
    in the latent space, for comparison), or both"""

    @property
    def weights(self) -> list[float]:
        """λ of its runs, ascending; a prior without λ has the one run, λ = 0."""
        if self.prior is None:
            return []
        return sorted(set(self.lambdas)) or [0.0]

    @property
    def uses_variants(self) -> bool:
        """Whether the classifier sees latent augmentations."""
        return variants_of(self.augmentation) is not None

    @model_validator(mode="after")
    def _one_kind_of_run(self) -> Experiment:
        if self.prior is None and (self.lambdas or self.uses_variants or self.classifier is None):
            raise ValueError("without a prior an experiment has a classifier, no lambdas, and neither nfa nor noise")
        return self


class TableSettings(Settings):
    """What a table is called and shows."""

    title: str = ""
    best_only: bool = False
    """one row an experiment, at the λ that is best on the validation split; else a row for each λ"""
    best_by: Annotated[MetricName, AfterValidator(_measured_on_validation)] | None = None
    """metric by whose value on the validation split λ is chosen; None: nf_acc, top1 for classifiers of real images"""
    metrics: Annotated[list[MetricName], Field(min_length=1), AfterValidator(_once_each)] = ["nf_acc", "cnn_acc"]
    """what is shown of each run, a column each"""
    literature: list[str] = []
    """rows of cited work; their numbers stand in workflow/reference/paper.csv under these names, where known"""


class Table(TableSettings):
    """A table of the paper as a list of experiments."""

    experiments: Annotated[list[Experiment], Field(min_length=1)]


Tables = Annotated[dict[Name, Table], NULL_LEAVES_OUT]
"""Tables by name; null leaves one out."""
