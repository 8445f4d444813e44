"""Sides of a comparison: the row named by a claim, at its λ, and its values by seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from nfpi.config.claims import DIVERGENCE, ComparedRow, name_of
from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import METRICS, VALIDATION_PREFIX, find_registered_name, metric
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.tables.building import accuracy_table
from nfpi.results.tables.rows import TableRow
from nfpi.results.tables.summaries import Score, TableError, choose_best, select_values, split_by_outcome
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
    _frames: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, repr=False)

    def make_table(self, name: str, shown: str) -> pd.DataFrame:
        """Return the table `name` with the metric `shown` at all λ, in the order of its rows."""
        if (name, shown) not in self._frames:
            changes = {"metrics": [shown], "best_only": False, "literature": []}
            settings = self.tables[name].model_copy(update=changes)
            self._frames[name, shown] = accuracy_table(self.metrics, settings, self.reference, self.rows[name])
        return self._frames[name, shown]


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
        TableError: there is no such row, a cell has two values, or a run lacks a metric.
    """
    if compared.table is None:
        assert compared.value is not None
        return Side("", constant=compared.value)
    frame, rows = evidence.make_table(compared.table, name), list(evidence.rows[compared.table])
    try:
        experiment = compared.find_index({row.experiment: row for row in rows})
    except ValueError as error:
        raise TableError(str(error)) from None
    candidates = [(row, line) for row, line in zip(rows, frame.to_dict("records"), strict=True)]
    candidates = [pair for pair in candidates if pair[0].experiment == experiment]
    chosen = _choose_row(compared, name, candidates, evidence)
    label = name_of(candidates[0][0])
    if chosen is None:
        return Side(label, row=candidates[0][0])
    row, line = chosen
    measured, diverged, finished = split_by_outcome(evidence.metrics, row)
    seeds_diverged = frozenset(int(seed) for seed in diverged["seed"])
    if name == DIVERGENCE:
        values = {int(seed): 100.0 * (seed in seeds_diverged) for seed in measured["seed"].unique()}
    else:
        of_metric = select_values(finished, name)
        values = {int(seed): float(value) for seed, value in zip(of_metric["seed"], of_metric["value"], strict=True)}
    weight = row.weight if row.weight is not None and row.has_other_weights else math.nan
    return Side(label, weight, values, seeds_diverged, float(line[f"paper_{name}"]), row)


def _choose_row(
    compared: ComparedRow, name: str, candidates: list[tuple[TableRow, dict[Any, Any]]], evidence: Evidence
) -> tuple[TableRow, dict[Any, Any]] | None:
    """Choose the row at the λ of the comparison; None if there are no runs to choose λ by.

    If all runs diverged at all λ, the smallest λ is chosen.
    """
    by_weight = sorted(candidates, key=lambda pair: pair[0].weight or 0.0)
    if compared.weight == "min":
        return by_weight[0]
    if compared.weight == "max":
        return by_weight[-1]
    if compared.weight == "best":
        best = next((pair for pair in candidates if pair[1]["best"]), None)
        return best or (by_weight[0] if len(by_weight) == 1 else _choose_first_if_all_diverged(by_weight, evidence))
    if compared.weight == "inner_best":
        inner = by_weight[1:-1]
        index = _choose_by_validation(inner, name, evidence)
        return inner[index] if index is not None else _choose_first_if_all_diverged(inner, evidence)
    return next((pair for pair in by_weight if (pair[0].weight or 0.0) == compared.weight), None)


def _choose_first_if_all_diverged(
    candidates: list[tuple[TableRow, dict[Any, Any]]], evidence: Evidence
) -> tuple[TableRow, dict[Any, Any]] | None:
    """Return the first row if all rows diverged at all seeds; None if a run did not diverge, or a row has no runs."""
    return candidates[0] if all(_is_diverged(row, evidence) for row, _ in candidates) else None


def _is_diverged(row: TableRow, evidence: Evidence) -> bool:
    """Return whether a row has runs, and all diverged."""
    _, diverged, finished = split_by_outcome(evidence.metrics, row)
    return finished.empty and not diverged.empty


def _choose_by_validation(
    candidates: list[tuple[TableRow, dict[Any, Any]]], name: str, evidence: Evidence
) -> int | None:
    """Return the index of the row that is best on the validation split; None if no row has a value there.

    λ is chosen by the compared metric on the validation split; if :func:`_find_validation_metric` finds none, by the
    metric that the table chooses by (its column `chosen_by`).
    """
    first, line_of_first = candidates[0]
    of_metric = _find_validation_metric(name, first)
    chosen_by = of_metric or line_of_first["chosen_by"]  # the same for all λ of an experiment
    scores = []
    for row, line in candidates:
        measured, diverged, finished = split_by_outcome(evidence.metrics, row)
        mean = line["validation"] if of_metric is None else select_values(finished, of_metric)["value"].mean()
        scores.append(Score(float(mean), len(diverged), measured["seed"].nunique()))
    return choose_best(scores, higher_is_better=metric(chosen_by).higher_is_better)


def _find_validation_metric(name: str, row: TableRow) -> str | None:
    """Return the metric that is `name` on the validation split; None if it is not measured, or cannot rank λ."""
    on_validation = f"{VALIDATION_PREFIX}{name}"
    if find_registered_name(on_validation) not in METRICS:
        return None
    if on_validation not in METRICS and row.is_trained_on_real_images:
        return None  # computed metrics have validation values for flows only
    return on_validation if metric(on_validation).higher_is_better is not None else None
