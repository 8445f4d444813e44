"""Claims of the paper as comparisons of rows of tables: which rows, on which metric, and which effect matters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Protocol

from pydantic import BeforeValidator, Field, model_validator

from nfpi.config.base import Name, NonNegativeFloat, NonNegativeInt, Settings, suggest
from nfpi.config.experiments import Experiment, MetricName, Table

Choice = Literal["best", "inner_best", "min", "max"]
"""Which λ of an experiment: the one that its table chooses on the validation split; the best one between the smallest
and the largest, by the comparison's own metric on the validation split; the smallest; the largest."""

ACCURACIES = {"nf_acc": "flow", "cnn_acc": "classifier", "top1": "classifier"}
"""Metrics that predictions.npz tells for each test image, and whose predictions they are."""

DIVERGENCE = "divergence"
"""Metric: percentage of the seeds whose run diverged; no run records it."""


class Named(Protocol):
    """What a claim finds an experiment by: one of the settings, or a row of its table."""

    @property
    def label(self) -> str:
        """Of the row."""

    @property
    def dataset(self) -> str:
        """Its name."""

    @property
    def prior(self) -> str | None:
        """Its name."""

    @property
    def classifier(self) -> str | None:
        """Its name."""


class ComparedRow(Settings):
    """A row of a table at one λ, or a constant."""

    table: Name | None = None
    row: str | None = None
    """label of the experiment, or the name of its prior where it has none; None: the table has one experiment"""
    dataset: Name | None = None
    """where experiments on several data sets share the label"""
    weight: Choice | NonNegativeFloat = Field("best", alias="lambda")
    """λ: a number of the experiment's list, `best`, `inner_best`, `min` or `max`"""
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """a constant in the metric's unit, in the place of a row"""

    @model_validator(mode="after")
    def _a_row_or_a_constant(self) -> ComparedRow:
        if (self.table is None) == (self.value is None):
            raise ValueError("expected a row (table, row) or a constant (value), and not both")
        return self

    def index_in(self, experiments: Mapping[int, Named]) -> int:
        """The position of the experiment in its table.

        Args:
            experiments: those of the table, or a row of each, by position.

        Raises:
            ValueError: there is no such experiment, or more than one.
        """
        names = {index: name_of(experiment) for index, experiment in experiments.items()}
        found = [
            index
            for index, experiment in experiments.items()
            if self.row in (None, names[index]) and self.dataset in (None, experiment.dataset)
        ]
        if len(found) == 1:
            return found[0]
        asked = "any row" if self.row is None else f"row '{self.row}'"
        asked += f" on '{self.dataset}'" if self.dataset is not None else ""
        if found:
            raise ValueError(
                f"expected one row of table '{self.table}', received {len(found)} for {asked}: name row and dataset"
            )
        known = [] if self.row is None or self.row in names.values() else dict.fromkeys(names.values())
        raise ValueError(f"table '{self.table}' has no {asked}{suggest(str(self.row), known)}")


class ClaimComparison(Settings):
    """Two rows, compared on one metric: a part of a claim."""

    first: ComparedRow
    second: ComparedRow
    metric: MetricName = "nf_acc"
    direction: Literal["greater", "less", "not_less"] = "greater"
    """what is claimed of first − second: above zero, below zero, or above −`smallest_effect` (non-inferiority)"""
    smallest_effect: NonNegativeFloat
    """the smallest difference that matters, in the metric's unit; the margin of `not_less`"""
    test: Literal["paired_t", "bootstrap", "mcnemar"] = "paired_t"
    """over seeds; over seeds and test images; over the test images of the first seed that both rows have"""
    paper_difference: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """the paper's first − second; None: of both rows' values in workflow/reference/paper.csv, where they are known"""

    @model_validator(mode="after")
    def _can_be_tested(self) -> ClaimComparison:
        if self.first.table is None:
            raise ValueError("first: expected a row of a table, received a constant")
        if self.direction == "not_less" and self.smallest_effect == 0:
            raise ValueError("smallest_effect: expected a margin above 0 for not_less, received 0")
        if self.metric == DIVERGENCE and self.test != "mcnemar":
            raise ValueError(f"test: expected mcnemar (over seeds) for {DIVERGENCE}, received {self.test}")
        if self.test != "paired_t" and self.second.table is None:
            raise ValueError(f"test: expected paired_t for a constant, received {self.test}")
        if self.needs_predictions and self.metric not in ACCURACIES:
            known = ", ".join(ACCURACIES)
            raise ValueError(f"test: {self.test} compares accuracies ({known}), received metric {self.metric}")
        return self

    @property
    def needs_predictions(self) -> bool:
        """Whether the test reads the predictions of single images."""
        return self.test != "paired_t" and self.metric != DIVERGENCE

    @property
    def rows(self) -> list[ComparedRow]:
        """The rows that are compared, without a constant."""
        return [row for row in (self.first, self.second) if row.table is not None]


class Claim(Settings):
    """What the paper says, and the comparisons that decide it."""

    number: NonNegativeInt = 0
    """claims are shown in this order; 0: by name, after the others"""
    statement: Annotated[str, Field(min_length=1)]
    """one sentence"""
    paper: str = ""
    """where the paper says it"""
    comparisons: Annotated[list[ClaimComparison], Field(min_length=1)]


def _without_nulls(claims: Any) -> Any:
    """A claim of the preset that is extended is left out by `name: null`."""
    if not isinstance(claims, Mapping):
        return claims
    return {name: claim for name, claim in claims.items() if claim is not None}


Claims = Annotated[dict[Name, Claim], BeforeValidator(_without_nulls)]
"""Claims by name."""


def name_of(experiment: Named) -> str:
    """What a claim calls an experiment by."""
    return experiment.label or experiment.prior or str(experiment.classifier)


def check_claims(
    claims: Mapping[str, Claim],
    tables: Mapping[str, Table],
    weights_of: Callable[[Experiment], list[float]],
) -> None:
    """Make sure that every row that a claim names is there, with the metric and the λ that it is compared at.

    Raises:
        ValueError: one is not; the message names the comparison.
    """
    for name, claim in claims.items():
        for index, comparison in enumerate(claim.comparisons):
            where = f"claims.{name}.comparisons.{index}"
            experiments = []
            for side in ("first", "second"):
                row: ComparedRow = getattr(comparison, side)
                if row.table is None:
                    continue
                if row.table not in tables:
                    raise ValueError(f"{where}.{side}: unknown table '{row.table}'{suggest(row.table, tables)}")
                in_table = tables[row.table].experiments
                try:
                    experiments.append(in_table[row.index_in(dict(enumerate(in_table)))])
                    _check_weight(row, weights_of(experiments[-1]))
                    _check_metric(comparison.metric, experiments[-1])
                except ValueError as error:
                    raise ValueError(f"{where}.{side}: {error}") from None
            if len({experiment.dataset for experiment in experiments}) > 1:
                on = " and ".join(experiment.dataset for experiment in experiments)
                raise ValueError(f"{where}: expected rows on one data set, received {on}")


def _check_weight(row: ComparedRow, weights: list[float]) -> None:
    if isinstance(row.weight, str):
        if row.weight == "inner_best" and len(weights) < 3:
            raise ValueError(f"lambda: inner_best needs at least three λ, the experiment has {len(weights)}")
    elif row.weight not in weights:
        known = ", ".join(f"{weight:g}" for weight in weights) or "none"
        raise ValueError(f"lambda: expected one of the experiment's ({known}), received {row.weight:g}")


def _check_metric(metric: str, experiment: Experiment) -> None:
    if metric.startswith(("cnn_", "validation_cnn_")) and experiment.classifier is None:
        raise ValueError(f"metric {metric} needs a classifier, the experiment has none")
