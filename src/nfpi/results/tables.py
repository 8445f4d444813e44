"""Metrics of many runs as one table, beside the paper's numbers.

A table has a row for each experiment and λ, or for each experiment at its best λ, and shows the metrics that it names.
Differences are in the metric's unit. What is not known is an empty cell.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import OF_VALIDATION, metric
from nfpi.results.comparisons import RunPredictions, compare_with_best
from nfpi.results.csv_files import read_csv, read_header
from nfpi.results.rows import TableRow, runs_to_compare
from nfpi.results.summaries import Summary, TableError, split_by_outcome, summarize
from nfpi.results.summaries import values_over_seeds as values_over_seeds
from nfpi.runs import format_weight

ROW_COLUMNS = {
    "experiment": "int64",
    "row": "str",
    "dataset": "str",
    "flow": "str",
    "prior": "str",
    "lambda": "float64",
    "classifier": "str",
    "augmentation": "str",
    "images": "Int64",
    "status": "str",
    "validation": "float64",
    "chosen_by": "str",
    "candidates": "Int64",
    "best": "bool",
}
"""Columns that every table has, with their types.

`images` counts the test images that a value of one run is measured on. `validation` is what λ is chosen by, the metric
`chosen_by` on the validation split; `best` marks the λ of an experiment where it is best;
`candidates` counts the λ that were tried.
"""

_ADDED = ("chosen_by", "candidates")
_ADDED_OF_METRICS = ("_test", "_p")
"""Columns that tables of older versions lack."""

REFERENCE_COLUMNS = {
    "table": "str",
    "row": "str",
    "dataset": "str",
    "flow": "str",
    "prior": "str",
    "lambda": "float64",
    "classifier": "str",
    "augmentation": "str",
    "metric": "str",
    "value": "float64",
    "source": "str",
}
"""Columns of the paper's numbers; a classifier of real images leaves flow, prior and λ empty, a cited work all."""

_COUNT = "_seeds"


def table_columns(metrics: Iterable[str]) -> dict[str, str]:
    """Columns of a table of these metrics, with their types.

    `_seeds` counts the runs behind a mean, `_std` is the standard deviation over them (n − 1), `_low` and `_high` bound
    the 95 % confidence interval, `_difference` is ours − the paper's. `_test` names the test by which rows are compared
    with the best one in this metric, `_p` is its adjusted p, empty for the best itself
    (:func:`nfpi.results.comparisons.compare_with_best`).
    """
    return ROW_COLUMNS | {
        column: kind
        for name in metrics
        for column, kind in {
            name: "float64",
            f"{name}_std": "float64",
            f"{name}_low": "float64",
            f"{name}_high": "float64",
            f"{name}{_COUNT}": "Int64",
            f"paper_{name}": "float64",
            f"{name}_difference": "float64",
            f"{name}_test": "str",
            f"{name}_p": "float64",
        }.items()
    }


def metrics_of_table(columns: Iterable[str]) -> list[str]:
    """Return the metrics that a table with these columns shows."""
    return [column.removesuffix(_COUNT) for column in columns if column.endswith(_COUNT)]


def accuracy_table(
    metrics: pd.DataFrame,
    table: TableSettings,
    reference: pd.DataFrame,
    rows: Sequence[TableRow],
    root: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """The metrics of a table over seeds, one row for each (experiment, λ), beside the paper's; then the cited work.

    A row whose runs are not among the metrics has the status `missing`. Seeds that diverged are left out of the means
    and of the choice of λ, and counted in `status`; a λ that diverged in more than half of its seeds is chosen only
    where all did so.

    Args:
        metrics: what :func:`nfpi.results.collect.collect` returns, in any order.
        table: what is shown.
        reference: the paper's numbers (:func:`read_reference`), whichever table they stand in.
        rows: the rows with their runs, in the order in which they are shown.
        root: the folder results/{preset} that the runs lie under, whose predictions are read where a table of one seed
            compares accuracies; None: none are.

    Returns:
        A frame with the columns :func:`table_columns`.

    Raises:
        TableError: two values for one metric of one run, two different reference values for one cell, no validation
            value to choose by, or predictions that do not belong together.
        MetricsError: a file is no predictions.
    """
    known = _reference_values(reference)
    shown: list[_Row] = []
    for experiment in dict.fromkeys(row.experiment for row in rows):
        of_experiment = [_row(metrics, row, table, known) for row in rows if row.experiment == experiment]
        _mark_best(of_experiment, must_have_values=table.best_by is not None)
        if table.best_only and any(row.cells["best"] for row in of_experiment):
            of_experiment = [row for row in of_experiment if row.cells["best"]]
        shown += of_experiment
    predictions = RunPredictions(root, {run.folder for run in runs_to_compare(rows, table.metrics)})
    compared = [(str(row.cells["dataset"]), row.summaries) for row in shown]
    comparisons = compare_with_best(compared, table.metrics, predictions)
    made = [row.cells | comparison for row, comparison in zip(shown, comparisons, strict=True)]
    first_cited = max((row.experiment for row in rows), default=-1) + 1
    for index, label in enumerate(table.literature, first_cited):
        made += [{"experiment": index, **cells} for cells in _cited_rows(label, reference)]
    columns = table_columns(table.metrics)
    empty = {name: "" for name, kind in columns.items() if kind == "str"}
    return pd.DataFrame([empty | cells for cells in made], columns=list(columns)).astype(columns)


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the paper's numbers (workflow/reference/paper.csv).

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, REFERENCE_COLUMNS)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return a table that :func:`nfpi.results.markup.write_table` wrote as csv, whichever metrics it shows.

    One of an older version says nothing of comparisons and of the choice.

    Raises:
        CsvError: a column is missing or of another type.
    """
    header = read_header(path)
    columns = table_columns(metrics_of_table(header))
    added = [name for name in columns if name in _ADDED or name.endswith(_ADDED_OF_METRICS)]
    lacking = [name for name in added if name not in header]
    frame = read_csv(path, {name: kind for name, kind in columns.items() if name not in lacking})
    for name in lacking:
        unknown: Any = "" if columns[name] == "str" else None
        frame[name] = pd.Series(unknown, index=frame.index, dtype=columns[name])
    return frame[[*columns, *(name for name in frame.columns if name not in columns)]] if lacking else frame


@dataclass(frozen=True)
class _Row:
    """A row of a table, before it is compared with others.

    Attributes:
        cells: by column.
        summaries: of its metrics, by name.
        validation: what λ is chosen by.
        diverged: share of its seeds that diverged.
        folder: of one of its runs, for errors.
    """

    cells: dict[str, Any]
    summaries: dict[str, Summary]
    validation: Summary
    diverged: float
    folder: str


def _row(metrics: pd.DataFrame, row: TableRow, table: TableSettings, known: Mapping[Hashable, float]) -> _Row:
    """One row; what it is compared with comes later."""
    measured, diverged, finished = split_by_outcome(metrics, row)
    seeds = measured["seed"].nunique()
    chosen_by = "validation_top1" if row.is_of_real_images else "validation_nf_acc"
    if table.best_by is not None:
        chosen_by = f"{OF_VALIDATION}{table.best_by}"
    validation = summarize(finished, chosen_by)
    cells: dict[str, Any] = {
        "experiment": row.experiment,
        "row": row.label,
        "dataset": row.dataset,
        "flow": row.flow or "",
        "prior": row.prior or "",
        "lambda": math.nan if row.weight is None else row.weight,
        "classifier": row.classifier or "",
        "augmentation": row.augmentation or "",
        "images": _images(finished),
        "status": _status(diverged["status"].tolist(), seeds),
        "validation": validation.mean,
        "chosen_by": chosen_by,
        "best": False,
    }
    summaries = {name: summarize(finished, name) for name in table.metrics}
    for name, ours in summaries.items():
        paper = _reference_value(known, row, name)
        cells |= {
            name: ours.mean,
            f"{name}_std": ours.std,
            f"{name}_low": ours.interval[0],
            f"{name}_high": ours.interval[1],
            f"{name}{_COUNT}": ours.count,
            f"paper_{name}": paper,
            f"{name}_difference": ours.mean - paper,
        }
    return _Row(cells, summaries, validation, len(diverged) / seeds if seeds else 0.0, row.runs[-1].folder)


def _mark_best(of_experiment: list[_Row], *, must_have_values: bool) -> None:
    """Mark the row that is best on the validation split, the first one of equals.

    Raises:
        TableError: a row has runs that did not diverge, and no validation value, which it must have.
    """
    scored = [row for row in of_experiment if row.validation.count]
    for row in of_experiment if must_have_values and len(of_experiment) > 1 else ():
        if not row.validation.count and any(summary.count for summary in row.summaries.values()):
            name = row.cells["chosen_by"]
            raise TableError(f"{row.folder}: best_by: expected {name} in metrics.json, received none: measure it again")
    for row in of_experiment:
        row.cells["candidates"] = len(scored)
    steady = [row for row in scored if row.diverged <= 0.5] or scored
    if steady:
        sign = -1 if metric(steady[0].cells["chosen_by"]).higher_is_better is False else 1
        max(steady, key=lambda row: sign * row.validation.mean).cells["best"] = True


def _cited_rows(label: str, reference: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row a data set for which a number of the cited work is known, or one without any."""
    cited = reference[reference["row"] == label]
    empty = dict.fromkeys(("dataset", "flow", "prior", "classifier", "augmentation"), "")
    cells: dict[str, Any] = empty | {"row": label, "status": "cited", "best": False}
    if cited.empty:
        return [cells]
    return [
        cells | {"dataset": dataset} | {f"paper_{row['metric']}": row["value"] for row in rows.to_dict("records")}
        for dataset, rows in cited.groupby("dataset", sort=False)
    ]


def _images(measured: pd.DataFrame) -> int | None:
    """How many images the values of one row are measured on; None where that is unknown, or differs between runs."""
    counts = measured["n"].dropna().unique()
    return int(counts[0]) if len(counts) == 1 else None


def _status(diverged: list[str], seeds: int) -> str:
    """What became of the seeds of one row, in words."""
    if not seeds:
        return "missing"
    if not diverged:
        return "ok"
    return diverged[0] if seeds == 1 else f"{len(diverged)} of {seeds} seeds diverged"


def _reference_values(reference: pd.DataFrame) -> dict[Hashable, float]:
    """Return the paper's values over all its tables.

    Those of flows are found by (data set, flow, prior as it lies on disk, λ, classifier of the generated images,
    metric), those of classifiers of real images by (data set, classifier, augmentation, metric).
    """
    values: dict[Hashable, float] = {}
    for row in reference.dropna(subset=["value"]).to_dict("records"):
        if not (row["prior"] or row["classifier"]):
            continue  # a cited work, found by its name
        key: tuple[str, ...] = (row["dataset"], row["classifier"], row["augmentation"], row["metric"])
        if row["prior"]:
            weight = format_weight(row["lambda"])
            key = (row["dataset"], row["flow"], row["prior"], weight, row["classifier"], row["metric"])
        if values.setdefault(key, row["value"]) != row["value"]:
            where = ", ".join(key[:-1])
            raise TableError(f"reference: {row['metric']} of {where} is both {values[key]} and {row['value']}")
    return values


def _reference_value(known: Mapping[Hashable, float], row: TableRow, name: str) -> float:
    """Return the paper's value of a metric of a row, NaN where it gives none."""
    if row.is_of_real_images:
        return known.get((row.dataset, row.classifier, row.augmentation, name), math.nan)
    run = row.flow_runs[0]
    assert run.weight is not None
    of_flow = (run.dataset, run.flow, run.prior, format_weight(run.weight))
    of_classifier = known.get((*of_flow, row.classifier, name), math.nan)
    return known.get((*of_flow, "", name), of_classifier)
