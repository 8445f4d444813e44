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
from nfpi.results.tables.summaries import TableError, select_values, split_by_outcome
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

    def make_table(self, name: str, rows: Sequence[TableRow], **changes: Any) -> pd.DataFrame:
        """Return some rows of the table `name`, all λ of each, with changed settings."""
        settings = self.tables[name].model_copy(update={"best_only": False, "literature": [], **changes})
        return accuracy_table(self.metrics, settings, self.reference, rows)


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
    rows = evidence.rows[compared.table]
    try:
        experiment = compared.find_index({row.experiment: row for row in rows})
    except ValueError as error:
        raise TableError(str(error)) from None
    candidates = sorted((row for row in rows if row.experiment == experiment), key=lambda row: row.weight or 0.0)
    frame = evidence.make_table(compared.table, candidates, metrics=[name])
    index = _choose_index(compared, name, candidates, frame, evidence)
    label = name_of(candidates[0])
    if index is None:
        return Side(label, row=candidates[0])
    row, paper = candidates[index], float(frame[f"paper_{name}"].iloc[index])
    measured, diverged, finished = split_by_outcome(evidence.metrics, row)
    seeds_diverged = frozenset(int(seed) for seed in diverged["seed"])
    if name == DIVERGENCE:
        values = {int(seed): 100.0 * (seed in seeds_diverged) for seed in measured["seed"].unique()}
    else:
        of_metric = select_values(finished, name)
        values = {int(seed): float(value) for seed, value in zip(of_metric["seed"], of_metric["value"], strict=True)}
    weight = row.weight if row.weight is not None and row.has_other_weights else math.nan
    return Side(label, weight, values, seeds_diverged, paper, row)


def _choose_index(
    compared: ComparedRow, name: str, candidates: Sequence[TableRow], frame: pd.DataFrame, evidence: Evidence
) -> int | None:
    """Choose the row at the λ of the comparison; None if there are no runs to choose λ by.

    `best` is chosen as in the table; `inner_best` by the compared metric on the validation split if it is measured
    there, else as in the table. If all runs diverged at all λ, the smallest λ is chosen.

    Args:
        compared: the row and the choice of λ.
        name: the compared metric.
        candidates: the rows at all λ, ascending.
        frame: their table.
        evidence: results and tables.
    """
    last = len(candidates) - 1
    if compared.weight in ("min", "max"):
        return 0 if compared.weight == "min" else last
    if compared.weight not in ("best", "inner_best"):
        weights = [row.weight or 0.0 for row in candidates]
        return weights.index(compared.weight) if compared.weight in weights else None
    first, is_best = 0, frame["best"]
    if compared.weight == "inner_best":
        first, candidates = 1, candidates[1:-1]
        changes = {"best_by": name} if _is_measured_on_validation_split(name, candidates[0]) else {}
        is_best = evidence.make_table(str(compared.table), candidates, metrics=[name], **changes)["best"]
    if is_best.any():
        return first + int(is_best.argmax())
    return first if len(candidates) == 1 or all(_is_diverged(row, evidence) for row in candidates) else None


def _is_diverged(row: TableRow, evidence: Evidence) -> bool:
    """Return whether a row has runs, and all diverged."""
    _, diverged, finished = split_by_outcome(evidence.metrics, row)
    return finished.empty and not diverged.empty


def _is_measured_on_validation_split(name: str, row: TableRow) -> bool:
    """Return whether a metric is measured on the validation split too, and can rank λ."""
    on_validation = f"{VALIDATION_PREFIX}{name}"
    if find_registered_name(on_validation) not in METRICS:
        return False
    if on_validation not in METRICS and row.is_trained_on_real_images:
        return False  # computed metrics have validation values for flows only
    return metric(on_validation).higher_is_better is not None
