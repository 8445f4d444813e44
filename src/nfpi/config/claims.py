"""Settings of claims: statements of the paper as comparisons of table rows, with a metric and a smallest effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from nfpi.config.base import ConfigError, Name, NonNegativeFloat, NonNegativeInt, Seed, Settings, suggest
from nfpi.config.experiments import Experiment, MetricName, Table
from nfpi.config.metrics import ACCURACIES
from nfpi.config.metrics import metric as find_metric
from nfpi.runs import OWN, format_weight, name_refitted

Choice = Literal["best", "inner_best", "min", "max", "equal_density"]
"""Choice among the λ of an experiment. best: the one that its table selects on the validation split; inner_best: the
one, among all but the smallest and the largest, with the best value of the comparison's metric on the validation split
or, if it is not measured there, of the metric by which the table selects; min, max: smallest, largest; equal_density,
of `first` only: none, but the metric is interpolated linearly between neighbouring λ where their bits/dim of the test
images enclose those of `second`, with the same seed; of several such places, the best counts."""

Direction = Literal["greater", "less", "not_less"]
"""Claim about first − second: above zero, below zero, or above −`smallest_effect` (non-inferiority)."""
Test = Literal["auto", "paired_t", "mcnemar"]
"""Test of a difference, see `ClaimComparison.test`."""

DIVERGENCE = "divergence"
"""Metric: percentage of the seeds whose run diverged; derived from all seeds, not recorded by a run."""


class ComparedRow(Settings):
    """A row of a table at one λ, or a constant."""

    table: Name | None = None
    row: str | None = None
    """label of the experiment, or the name of its prior or classifier if it has no label; None: the only experiment of
    the table, or of the table on `dataset`"""
    dataset: Name | None = None
    """data set; needed only if `row` alone matches experiments on several data sets"""
    weight: Choice | NonNegativeFloat = Field("best", alias="lambda")
    """λ: a number of the experiment's list, `best`, `inner_best`, `min`, `max` or `equal_density`"""
    value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """a constant in the metric's unit, instead of a row"""

    @model_validator(mode="after")
    def _check_row_or_constant(self) -> ComparedRow:
        if (self.table is None) == (self.value is None):
            raise ValueError("expected a row (table, row) or a constant (value), and not both")
        return self

    def find_index(self, experiments: Mapping[int, Any]) -> int:
        """Return the position of the experiment in its table.

        Args:
            experiments: the experiments of the table by position, or one row for each.

        Raises:
            ValueError: no experiment, or more than one, matches.
        """
        names = {index: name_of(experiment) for index, experiment in experiments.items()}
        matching = [
            index
            for index, experiment in experiments.items()
            if self.row in (None, names[index]) and self.dataset in (None, experiment.dataset)
        ]
        if len(matching) == 1:
            return matching[0]
        asked = f"{self.row or '…'} on {self.dataset or '…'}"
        if matching:
            raise ValueError(f"expected one row of table '{self.table}', received {len(matching)} for '{asked}'")
        known = dict.fromkeys(f"{names[index]} on {experiment.dataset}" for index, experiment in experiments.items())
        raise ValueError(f"table '{self.table}' has no row '{asked}'{suggest(asked, known)}")


class ClaimComparison(Settings):
    """Comparison of two rows on one metric. Most settings have defaults in the claim that contains the comparison."""

    # The schema requires nothing here, since a setting may be given by the claim instead.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    first: ComparedRow
    second: ComparedRow
    """without a table, it has the table and the data set of `first`"""
    metric: MetricName = "nf_acc"
    direction: Direction = "greater"
    """claim about first − second: above zero, below zero, or above −`smallest_effect` (non-inferiority)"""
    smallest_effect: NonNegativeFloat
    """the smallest difference that matters, in the metric's unit; the margin of `not_less`"""
    test: Test = "auto"
    """paired_t: over seeds; mcnemar: over the test images of the first seed that both rows have, or for divergence over
    seeds; auto: mcnemar for divergence, and for an accuracy of two rows where the preset has one seed, else paired_t"""
    paper_difference: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """the paper's first − second; None: computed from workflow/reference/paper.csv, where both values are known"""

    @model_validator(mode="before")
    @classmethod
    def _complete_second(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("first"), Mapping):
            return data
        of_first = {name: data["first"][name] for name in ("table", "dataset") if name in data["first"]}
        return {**data, "second": _complete_row(data.get("second"), of_first)}

    @model_validator(mode="after")
    def _check_test(self) -> ClaimComparison:
        if self.first.table is None:
            raise ValueError("first: expected a row of a table, received a constant")
        if self.metric == DIVERGENCE and self.second.table is None:
            raise ValueError(f"second: expected a row of a table for {DIVERGENCE}, received a constant")
        if self.second.weight == "equal_density":
            raise ValueError("second: lambda: equal_density is for `first` only")
        if self.first.weight == "equal_density" and (self.second.table is None or self.metric == DIVERGENCE):
            raise ValueError("first: lambda: equal_density needs a metric of flows, and a row as `second`")
        known: tuple[Test, ...] = ("auto", "paired_t")
        if self.metric == DIVERGENCE:
            known = ("auto", "mcnemar")
        elif self._has_predictions:
            known = ("auto", "paired_t", "mcnemar")
        if self.test not in known:
            compared = self.metric if self.second.table is not None else f"{self.metric} and a constant"
            raise ValueError(f"test: expected {' or '.join(known)} for {compared}, received {self.test}")
        return self

    @property
    def _has_predictions(self) -> bool:
        """Whether each side is one run a seed that classifies images."""
        return self.metric in ACCURACIES and self.second.table is not None and self.first.weight != "equal_density"

    def choose_test(self, seeds: int) -> Test:
        """Return the test for this number of seeds; with `auto`, the same as in tables.

        The number includes diverged seeds. Otherwise, if all seeds but one diverged, a test over images would replace
        the test over seeds.
        """
        if self.test != "auto":
            return self.test
        of_images = seeds == 1 and self._has_predictions
        return "mcnemar" if of_images or self.metric == DIVERGENCE else "paired_t"

    def needs_predictions(self, seeds: int) -> bool:
        """Return whether the test for this number of seeds needs the predictions of single images."""
        return self.choose_test(seeds) != "paired_t" and self.metric != DIVERGENCE

    @property
    def rows(self) -> list[ComparedRow]:
        """The compared rows, constants excluded."""
        return [row for row in (self.first, self.second) if row.table is not None]


_ROWS = ("first", "second")
_COMMON = (*_ROWS, "metric", "direction", "smallest_effect", "test")
"""Settings that a claim may give for all its comparisons."""


def _declare_common_default() -> Any:
    """Declare a default for all comparisons, which is serialised with each comparison, not with the claim."""
    return Field(default=None, exclude=True, description="default of all comparisons")


class Claim(Settings):
    """A statement of the paper, and the comparisons that decide it.

    `first`, `second`, `metric`, `direction`, `smallest_effect` and `test` may be given here as defaults of all
    comparisons. A comparison's row that names no table is merged with the default row. Validation fills the defaults
    in, so every comparison then has all its settings.
    """

    # The schema requires nothing here, since a preset that this one extends may have the rest of the claim.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema.pop("required"))

    number: NonNegativeInt = 0
    """position of the claim; claims with 0 come last, sorted by name"""
    statement: Annotated[str, Field(min_length=1)]
    """one sentence"""
    paper: str = ""
    """where the paper makes the claim"""
    without_seeds: list[Seed] = []
    """seeds that the verdict leaves out, such as those from which the smallest effects were chosen"""
    first: ComparedRow | None = _declare_common_default()
    second: ComparedRow | None = _declare_common_default()
    metric: MetricName | None = _declare_common_default()
    direction: Direction | None = _declare_common_default()
    smallest_effect: NonNegativeFloat | None = _declare_common_default()
    test: Test | None = _declare_common_default()
    comparisons: Annotated[list[ClaimComparison], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("comparisons"), list):
            return data
        common = {name: data[name] for name in _COMMON if data.get(name) is not None}
        rest = {name: value for name, value in data.items() if name not in _ROWS}  # may be invalid by themselves
        return {**rest, "comparisons": [_apply_defaults(part, common) for part in data["comparisons"]]}


def _apply_defaults(comparison: Any, common: Mapping[str, Any]) -> Any:
    """Return a raw comparison, completed by the settings that its claim gives for all."""
    if not isinstance(comparison, Mapping):
        return comparison
    rows = {side: _complete_row(comparison[side], common.get(side)) for side in _ROWS if side in comparison}
    return {**common, **comparison, **rows}


def _complete_row(row: Any, default: Any) -> Any:
    """Return a raw row, completed by the settings of a default row unless it has a table or a constant itself."""
    if not isinstance(row, Mapping) or row.keys() & {"table", "value"}:
        return row
    return {**default, **row} if isinstance(default, Mapping) and "value" not in default else row


def name_of(experiment: Any) -> str:
    """Return the name by which claims refer to an experiment, from its settings or from one of its rows in a table."""
    prior = experiment.prior and name_refitted(experiment.prior, getattr(experiment, "refit", None))
    return experiment.label or prior or str(experiment.classifier)


def check_claims(claims: Mapping[str, Claim], tables: Mapping[str, Table]) -> None:
    """Check that every row named by a claim exists, and has the metric and λ of the comparison.

    Raises:
        ConfigError: a row or its metric or λ is missing, or compared rows are on different data sets; the message names
            the comparison.
    """
    for name, claim in claims.items():
        try:
            _check_claim(claim, tables)
        except ValueError as error:
            raise ConfigError(f"claims.{name}.{error}; `claims: {{{name}: null}}` removes the claim") from None


def _check_claim(claim: Claim, tables: Mapping[str, Table]) -> None:
    """Check the rows of one claim; raises ValueError, whose message names the comparison."""
    for index, comparison in enumerate(claim.comparisons):
        where = f"comparisons.{index}"
        experiments = []
        for side in _ROWS:
            row: ComparedRow = getattr(comparison, side)
            if row.table is None:
                continue
            if row.table not in tables:
                raise ValueError(f"{where}.{side}: unknown table '{row.table}'{suggest(row.table, tables)}")
            in_table = tables[row.table].experiments
            try:
                experiments.append(in_table[row.find_index(dict(enumerate(in_table)))])
                if not experiments[-1].relative_weights:  # otherwise λ is not computed yet
                    _check_weight(row, experiments[-1].weights)
                _check_metric(comparison.metric, experiments[-1])
                if experiments[-1].prior == OWN and experiments[-1].models != ["real"]:
                    raise ValueError("expected a row whose seeds are trainings, received a trained model")
            except ValueError as error:
                raise ValueError(f"{where}.{side}: {error}") from None
        if len({experiment.dataset for experiment in experiments}) > 1:
            on = " and ".join(experiment.dataset for experiment in experiments)
            raise ValueError(f"{where}: expected rows on one data set, received {on}")


def has_rows(raw: Any, tables: Mapping[str, Any]) -> bool:
    """Return whether the tables have what a claim needs, or claim or tables are invalid by themselves."""
    try:
        claim = Claim.model_validate(raw)
        named = {str(row.table) for comparison in claim.comparisons for row in comparison.rows}
        known = {name: Table.model_validate(tables[name]) for name in named if name in tables}
    except ValidationError:
        return True  # reported when the merged settings are validated
    try:
        _check_claim(claim, known)
    except ValueError:
        return False
    return True


def _check_weight(row: ComparedRow, weights: list[float]) -> None:
    if isinstance(row.weight, str):
        needed = {"inner_best": 3, "equal_density": 2}.get(row.weight, 0)
        if len(weights) < needed:
            raise ValueError(f"lambda: {row.weight} needs at least {needed} λ, the experiment has {len(weights)}")
    elif row.weight not in weights:
        known = ", ".join(map(format_weight, weights)) or "none"
        raise ValueError(f"lambda: expected a λ of the experiment ({known}), received {format_weight(row.weight)}")


def _check_metric(metric: str, experiment: Experiment) -> None:
    model, known = find_metric(metric).model, experiment.models
    if model not in (None, *known):
        raise ValueError(f"metric: expected one of a {' or '.join(known)} model, received {metric}, of a {model} model")
