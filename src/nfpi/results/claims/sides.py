"""Sides of a comparison: the row named by a claim, at its λ, and its values by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from nfpi.config.claims import DIVERGENCE, ComparedRow, name_of
from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import METRICS, VALIDATION_PREFIX, find_registered_name, metric
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.tables.building import find_reference_value
from nfpi.results.tables.rows import TableRow
from nfpi.results.tables.summaries import MeasuredRow, TableError, mark_best, measure_row
from nfpi.runs import Run


@dataclass(frozen=True)
class Evidence:
    """The data by which claims are judged.

    Attributes:
        metrics: result of :func:`nfpi.results.recorded.collect.collect` for all existing runs.
        tables: settings of the tables, by name.
        rows: rows by name of their table, at least the rows that claims name.
        reference: the paper's numbers (:func:`nfpi.results.tables.building.read_reference`).
        read_predictions: function that reads the predictions of a run.
    """

    metrics: pd.DataFrame
    tables: Mapping[str, TableSettings]
    rows: Mapping[str, Sequence[TableRow]]
    reference: pd.DataFrame
    read_predictions: Callable[[Run], Predictions]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: values by seed, diverged seeds, and the value of the paper."""

    name: str
    weight: float = math.nan
    values: Mapping[int, float] = field(default_factory=dict)
    diverged: frozenset[int] = frozenset()
    paper: float = math.nan
    row: TableRow | None = None
    constant: float | None = None

    @property
    def ran(self) -> set[int]:
        """The seeds that have a run, including diverged ones."""
        return self.values.keys() | self.diverged

    @property
    def planned(self) -> int:
        """Number of seeds that the preset plans for the row; 0 for a constant."""
        return len({run.seed for run in self.row.runs}) if self.row is not None else 0


def find_side(compared: ComparedRow, name: str, evidence: Evidence) -> Side:
    """Find the row of one side, choose its λ, and return its values.

    Args:
        compared: the row and the choice of λ, or a constant.
        name: name of the metric.
        evidence: results and tables.

    Raises:
        TableError: there is no such row, a cell has two values, or a run lacks the metric that selects λ.
    """
    if compared.table is None:
        assert compared.value is not None
        return Side("", constant=compared.value)
    rows = evidence.rows[compared.table]
    try:
        experiment = compared.find_index({row.experiment: row for row in rows})
    except ValueError as error:
        raise TableError(str(error)) from None
    candidates = sorted((row for row in rows if row.experiment == experiment), key=lambda row: row.weight or 0.0)
    chosen = _choose_row(compared, name, candidates, evidence)
    label = name_of(candidates[0])
    if chosen is None:
        return Side(label, row=candidates[0])
    row, values = chosen.row, chosen.summaries[name].values
    diverged = frozenset(int(seed) for seed in chosen.diverged["seed"])
    if name == DIVERGENCE:
        values = {int(seed): 100.0 * (seed in diverged) for seed in chosen.measured["seed"].unique()}
    paper = find_reference_value(evidence.reference.to_dict("records"), row, name)
    weight = row.weight if row.weight is not None and row.has_other_weights else math.nan
    return Side(label, weight, values, diverged, paper, row)


def _choose_row(
    compared: ComparedRow, name: str, candidates: Sequence[TableRow], evidence: Evidence
) -> MeasuredRow | None:
    """Choose the row at the λ of the comparison; None if there are no runs to choose λ by.

    `best` is chosen as in the table; `inner_best` by the compared metric on the validation split if it is measured
    there, else as in the table. If all runs diverged at all λ, the smallest λ is chosen.

    Args:
        compared: the row and the choice of λ.
        name: the compared metric.
        candidates: the rows at all λ, ascending.
        evidence: results and tables.
    """
    among = {"best": candidates, "inner_best": candidates[1:-1], "min": candidates[:1], "max": candidates[-1:]}
    at_weight = [row for row in candidates if (row.weight or 0.0) == compared.weight]
    rows = among.get(str(compared.weight), at_weight)
    if not rows:
        return None
    best_by = evidence.tables[str(compared.table)].best_by
    by_metric = compared.weight == "inner_best" and _is_measured_on_validation_split(name, rows[0])
    measured = [measure_row(evidence.metrics, row, [name], name if by_metric else best_by) for row in rows]
    mark_best(measured, must_have_values=best_by is not None and not by_metric)
    best = next((each for each in measured if each.is_best), None)
    has_no_choice = len(measured) == 1 or all(each.has_diverged for each in measured)
    return measured[0] if best is None and has_no_choice else best


def _is_measured_on_validation_split(name: str, row: TableRow) -> bool:
    """Return whether a metric is measured on the validation split too, and can rank λ."""
    on_validation = f"{VALIDATION_PREFIX}{name}"
    if find_registered_name(on_validation) not in METRICS:
        return False
    if on_validation not in METRICS and row.is_trained_on_real_images:
        return False  # computed metrics have validation values for flows only
    return metric(on_validation).higher_is_better is not None
