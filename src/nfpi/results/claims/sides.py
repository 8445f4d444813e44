"""The sides of a comparison: a row of a table at its λ, with its values by seed, or a constant."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from nfpi.config.claims import DIVERGENCE, ClaimComparison, ComparedRow, name_of
from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import METRICS, VALIDATION_PREFIX, find_registered_name, metric
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.tables.building import find_reference_value
from nfpi.results.tables.rows import TableRow, find_compared_rows, select_at_weight
from nfpi.results.tables.summaries import MeasuredRow, mark_best, measure_row
from nfpi.runs import Run


@dataclass(frozen=True)
class ClaimData:
    """The data by which claims are judged.

    Attributes:
        metrics: result of :func:`nfpi.results.recorded.runs.collect` for all existing runs.
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

    def without_seeds(self, seeds: Sequence[int]) -> ClaimData:
        """Return the data without the runs of some seeds, unless no other seed is planned."""
        planned = {run.seed for rows in self.rows.values() for row in rows for run in row.runs}
        kept = sorted(planned - set(seeds))
        rows = {name: [row.with_seeds(kept) for row in of_table] for name, of_table in self.rows.items()}
        metrics = self.metrics[~self.metrics["seed"].isin(seeds)]
        return replace(self, metrics=metrics, rows=rows if seeds and kept else self.rows)


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        row: the row; that of the other side for a constant.
        name: name of the row; empty for a constant.
        weight: λ; NaN if the name alone identifies the row.
        values: values by seed; a constant has its value at each seed of the other side.
        ran: the seeds that have a run, including diverged ones.
        diverged: the diverged seeds.
        paper: value of the paper.
        constant: the value of a constant.
    """

    row: TableRow
    name: str = ""
    weight: float = math.nan
    values: Mapping[int, float] = field(default_factory=dict)
    ran: frozenset[int] = frozenset()
    diverged: frozenset[int] = frozenset()
    paper: float = math.nan
    constant: float | None = None

    def compute_mean(self, seeds: Sequence[int]) -> float:
        """Compute the mean over seeds."""
        if self.constant is not None:
            return self.constant
        return float(np.mean([self.values[seed] for seed in seeds])) if seeds else math.nan


def find_sides(comparison: ClaimComparison, data: ClaimData) -> tuple[Side, Side]:
    """Find both sides of a comparison; a constant has its value at each seed of the other side.

    Raises:
        ValueError: there is no such row, a cell has two values, or a run lacks the metric that selects λ.
    """
    constant = comparison.second.value
    if comparison.first.weight == "equal_density":
        second = _find_side(comparison.second, comparison.metric, data)
        return _interpolate_side(comparison, second.row, data), second
    first = _find_side(comparison.first, comparison.metric, data)
    if constant is None:
        return first, _find_side(comparison.second, comparison.metric, data)
    values = dict.fromkeys(first.values, constant)
    return first, Side(first.row, values=values, ran=first.ran, constant=constant)


def _find_side(compared: ComparedRow, name: str, data: ClaimData) -> Side:
    """Find the row of one side, choose its λ, and return its values of a metric.

    Raises:
        ValueError: there is no such row, a cell has two values, or a run lacks the metric that selects λ.
    """
    candidates = find_compared_rows(compared, data.rows[str(compared.table)])
    chosen = _choose_row(compared, name, candidates, data)
    label = name_of(candidates[0])
    if chosen is None:
        return Side(candidates[0], label)
    row, values = chosen.row, chosen.summaries[name].values
    diverged = frozenset(int(seed) for seed in chosen.diverged["seed"])
    if name == DIVERGENCE:
        values = {int(seed): 100.0 * (seed in diverged) for seed in chosen.measured["seed"].unique()}
    paper = find_reference_value(data.reference.to_dict("records"), row, name)
    weight = row.weight if row.weight is not None and row.has_other_weights else math.nan
    return Side(row, label, weight, values, diverged | values.keys(), diverged, paper)


def _interpolate_side(comparison: ClaimComparison, other: TableRow, data: ClaimData) -> Side:
    """Return the first side at the bits/dim of the other, by seed, where two neighbouring λ enclose them."""
    candidates = find_compared_rows(comparison.first, data.rows[str(comparison.first.table)])
    bits, value = "bits_per_dim", comparison.metric
    measured = [measure_row(data.metrics, row, [bits, value], None).summaries for row in candidates]
    values, ran = {}, {seed for summaries in measured for seed in summaries[value].values}
    for seed, density in measure_row(data.metrics, other, [bits], None).summaries[bits].values.items():
        points = [(of[bits].values[seed], of[value].values[seed]) for of in measured if seed in of[value].values]
        enclosing = [sorted(pair) for pair in pairwise(points) if min(pair)[0] <= density <= max(pair)[0]]
        if enclosing:
            values[seed] = max(float(np.interp(density, *np.transpose(pair))) for pair in enclosing)
    return Side(candidates[0], name_of(candidates[0]), values=values, ran=frozenset(ran))


def _choose_row(
    compared: ComparedRow, name: str, candidates: Sequence[TableRow], data: ClaimData
) -> MeasuredRow | None:
    """Choose the row at the λ of the comparison; None if there are no runs to choose λ by.

    `best` is chosen as in the table; `inner_best` by the compared metric on the validation split if it is measured
    there, else as in the table. If all runs diverged at all λ, the smallest λ is chosen.

    Args:
        compared: the row and the choice of λ.
        name: the compared metric.
        candidates: the rows at all λ, ascending.
        data: results and tables.
    """
    rows = select_at_weight(candidates, compared.weight)
    if not rows:
        return None
    best_by = data.tables[str(compared.table)].best_by
    by_metric = compared.weight == "inner_best" and _is_measured_on_validation_split(name, rows[0])
    measured = [measure_row(data.metrics, row, [name], name if by_metric else best_by) for row in rows]
    mark_best(measured, must_have_values=best_by is not None and not by_metric)
    best = next((each for each in measured if each.is_best), None)
    have_diverged = all(each.finished.empty and not each.diverged.empty for each in measured)
    return measured[0] if best is None and (len(measured) == 1 or have_diverged) else best


def _is_measured_on_validation_split(name: str, row: TableRow) -> bool:
    """Return whether a metric is measured on the validation split too, and can rank λ."""
    on_validation = f"{VALIDATION_PREFIX}{name}"
    # computed metrics have validation values for flows only
    registered = on_validation if row.is_trained_on_real_images else find_registered_name(on_validation)
    return registered in METRICS and metric(on_validation).higher_is_better is not None


def find_common_seeds(first: Side, second: Side) -> list[int]:
    """Return the seeds for which both sides have a value."""
    return sorted(first.values.keys() & second.values.keys())


def find_split_ratio(first: Side, second: Side) -> float:
    """Return the larger split ratio of the two rows; the ratios differ only if the data sets differ."""
    return max(first.row.split_ratio, second.row.split_ratio)
