"""Claims of the paper as comparisons of rows of tables: which rows, on which metric, and which effect matters."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeGuard

from pydantic import ConfigDict, Field, ValidationError, model_validator

from nfpi.config.base import NULL_LEAVES_OUT, Name, NonNegativeFloat, NonNegativeInt, Settings, suggest
from nfpi.config.experiments import Experiment, MetricName, Table
from nfpi.config.metrics import ACCURACIES

Choice = Literal["best", "inner_best", "min", "max"]
"""Which λ of an experiment: the one that its table chooses on the validation split; the best one between the smallest
and the largest, by the comparison's own metric on the validation split; the smallest; the largest."""

Direction = Literal["greater", "less", "not_less"]
"""What is claimed of first − second: above zero, below zero, or above −`smallest_effect` (non-inferiority)."""
Test = Literal["auto", "paired_t", "bootstrap", "mcnemar"]
"""By the number of seeds (:meth:`ClaimComparison.test_with`); over seeds; over seeds and test images; over the test
images of the first seed that both rows have."""

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
    """Two rows, compared on one metric: a part of a claim, which may say most of these settings for all its parts."""

    # An editor that checks a file against the schema must not ask each part for what its claim says.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    first: ComparedRow
    second: ComparedRow
    """without a table: of the table, and on the data set, of `first`"""
    metric: MetricName = "nf_acc"
    direction: Direction = "greater"
    """what is claimed of first − second: above zero, below zero, or above −`smallest_effect` (non-inferiority)"""
    smallest_effect: NonNegativeFloat
    """the smallest difference that matters, in the metric's unit; the margin of `not_less`"""
    test: Test = "auto"
    """paired_t: over seeds; bootstrap: over seeds and test images; mcnemar: over the test images of one seed; auto:
    mcnemar for an accuracy where the preset has one seed, else paired_t"""
    paper_difference: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """the paper's first − second; None: of both rows' values in workflow/reference/paper.csv, where they are known"""

    @model_validator(mode="before")
    @classmethod
    def _rows_of_one_table(cls, data: Any) -> Any:
        return _with_table(data)

    @model_validator(mode="after")
    def _can_be_tested(self) -> ClaimComparison:
        if self.first.table is None:
            raise ValueError("first: expected a row of a table, received a constant")
        if self.direction == "not_less" and self.smallest_effect == 0:
            raise ValueError("smallest_effect: expected a margin above 0 for not_less, received 0")
        if self.metric == DIVERGENCE and self.test not in ("auto", "mcnemar"):
            raise ValueError(f"test: expected mcnemar (over seeds) for {DIVERGENCE}, received {self.test}")
        if self.metric == DIVERGENCE and self.second.table is None:
            raise ValueError(f"second: expected a row of a table for {DIVERGENCE}, received a constant")
        if self.test not in ("auto", "paired_t") and self.second.table is None:
            raise ValueError(f"test: expected paired_t for a constant, received {self.test}")
        if self.test in ("bootstrap", "mcnemar") and self.metric not in (*ACCURACIES, DIVERGENCE):
            known = ", ".join(ACCURACIES)
            raise ValueError(f"test: {self.test} compares accuracies ({known}), received metric {self.metric}")
        return self

    def test_with(self, seeds: int) -> Test:
        """The test that is made with this number of seeds: with `auto`, the one that tables make.

        The seeds that diverged count too: a test over images must not stand in where one over seeds was planned.
        """
        if self.test != "auto":
            return self.test
        of_images = seeds == 1 and self.metric in ACCURACIES and self.second.table is not None
        return "mcnemar" if of_images or self.metric == DIVERGENCE else "paired_t"

    def needs_predictions(self, seeds: int) -> bool:
        """Whether the test, with this number of seeds, reads the predictions of single images."""
        return self.test_with(seeds) != "paired_t" and self.metric != DIVERGENCE

    @property
    def rows(self) -> list[ComparedRow]:
        """The rows that are compared, without a constant."""
        return [row for row in (self.first, self.second) if row.table is not None]


_ROWS = ("first", "second")
_COMMON = (*_ROWS, "metric", "direction", "smallest_effect", "test")
"""Settings that a claim may say for all its comparisons."""


def _common() -> Any:
    """Declare such a setting; it is written with each comparison."""
    return Field(default=None, exclude=True, description="of every comparison that does not say its own")


class Claim(Settings):
    """What the paper says, and the comparisons that decide it.

    What several comparisons have in common may stand here: `first`, `second`, `metric`, `direction`, `smallest_effect`
    and `test`. A comparison's own value wins; its own row that names no table has the rest of the row that stands here.
    Once read, every comparison has its settings in full.
    """

    number: NonNegativeInt = 0
    """claims are shown in this order; 0: by name, after the others"""
    statement: Annotated[str, Field(min_length=1)]
    """one sentence"""
    paper: str = ""
    """where the paper says it"""
    first: ComparedRow | None = _common()
    second: ComparedRow | None = _common()
    metric: MetricName | None = _common()
    direction: Direction | None = _common()
    smallest_effect: NonNegativeFloat | None = _common()
    test: Test | None = _common()
    comparisons: Annotated[list[ClaimComparison], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _hand_down(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("comparisons"), list):
            return data
        rest = {name: value for name, value in data.items() if name not in _ROWS}  # a part of a row is no row
        return {**rest, "comparisons": [_completed(part, data) for part in data["comparisons"]]}


def _completed(comparison: Any, claim: Mapping[str, Any]) -> Any:
    """A comparison as it is written, with what its claim says for all."""
    if not isinstance(comparison, Mapping):
        return comparison
    common = {name: claim[name] for name in _COMMON if claim.get(name) is not None}
    rows = {side: row for side, row in common.items() if side in _ROWS and isinstance(row, Mapping)}
    parts = {
        side: {**row, **comparison[side]}
        for side, row in rows.items()
        if "value" not in row and _names_no_table(comparison.get(side))
    }
    return {**common, **comparison, **parts}


def _with_table(data: Any) -> Any:
    """Settings as they are written, with the table and the data set of `first` in a `second` that names no table."""
    if not isinstance(data, Mapping):
        return data
    first, second = data.get("first"), data.get("second")
    if not isinstance(first, Mapping) or not _names_no_table(second):
        return data
    return {**data, "second": {name: first[name] for name in ("table", "dataset") if name in first} | {**second}}


def _names_no_table(row: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a row, as it is written, leaves its table to another one."""
    return isinstance(row, Mapping) and not row.keys() & {"table", "value"}


Claims = Annotated[dict[Name, Claim], NULL_LEAVES_OUT]
"""Claims by name; null leaves one out."""


def name_of(experiment: Named) -> str:
    """What a claim calls an experiment by."""
    return experiment.label or experiment.prior or str(experiment.classifier)


def check_claims(
    claims: Mapping[str, Claim],
    tables: Mapping[str, Table],
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
                    _check_weight(row, experiments[-1].weights)
                    _check_metric(comparison.metric, experiments[-1])
                except ValueError as error:
                    way_out = f"`claims: {{{name}: null}}` leaves the claim out"
                    raise ValueError(f"{where}.{side}: {error}; {way_out}") from None
            if len({experiment.dataset for experiment in experiments}) > 1:
                on = " and ".join(experiment.dataset for experiment in experiments)
                raise ValueError(f"{where}: expected rows on one data set, received {on}")


def leave_out_outdated(layers: Sequence[Mapping[str, Any]], merged: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out inherited claims about rows that are no more there: a later layer has other experiments in the table.

    A claim that the last layer to change one of its tables says itself is kept, so that its fault is named.

    Args:
        layers: settings as they are written, each laid over those before it.
        merged: all of them.

    Returns:
        `merged`, without these claims.
    """
    claims = merged.get("claims")
    if not isinstance(claims, Mapping) or not isinstance(merged.get("tables"), Mapping):
        return dict(merged)
    kept = {}
    for name, claim in claims.items():
        said = max(index for index, layer in enumerate(layers) if name in (layer.get("claims") or {}))
        later = {table for layer in layers[said + 1 :] for table in layer.get("tables") or {}}
        if not later or _is_possible(claim, merged["tables"], later):
            kept[name] = claim
    return {**merged, "claims": kept}


def _is_possible(written: Any, tables: Mapping[str, Any], changed: Container[str]) -> bool:
    """Whether a claim's rows are there, or the tables that lack them are not among those that were changed."""
    try:
        claim = Claim.model_validate(written)
        named = {str(row.table) for comparison in claim.comparisons for row in comparison.rows}
        if not any(name in changed for name in named):
            return True
        known = {name: Table.model_validate(tables[name]) for name in named if tables.get(name) is not None}
    except ValidationError:
        return True  # what is wrong is said when all settings are read
    try:
        check_claims({"": claim}, known)
    except ValueError:
        return False
    return True


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
