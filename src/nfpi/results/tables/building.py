"""Tables of metrics over seeds, beside the paper's numbers.

A table has one row for each experiment and λ, or for each experiment at its best λ. Differences are in the metric's
unit. Unknown cells are empty.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import GENERATED_PREFIX, list_computed_metrics, metric
from nfpi.results.recorded.csv_files import read_csv, read_header
from nfpi.results.tables.columns import METRIC_COLUMNS, ROW_COLUMNS, list_metrics, table_columns
from nfpi.results.tables.comparisons import RunPredictions, compare_with_best
from nfpi.results.tables.rows import TableRow, list_runs_to_compare
from nfpi.results.tables.summaries import (
    MeasuredRow,
    TableError,
    choose_best,
    find_selecting_metric,
    split_by_outcome,
    summarize,
)
from nfpi.runs import Run, format_weight

_MEASURE_AGAIN = (
    "leave it out, or repeat the evaluations: append `-R evaluate test_classifier test_classifier_on_real` to the end "
    "of snakemake's call (classifiers whose weights were not kept are trained again)"
)

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
"""Columns of the paper's numbers and their types; flow, prior and λ are empty for classifiers trained on real images,
and classifier and augmentation too for cited work. λ may be empty for a prior without λ, whose runs have λ = 0."""


def accuracy_table(
    metrics: pd.DataFrame,
    table: TableSettings,
    reference: pd.DataFrame,
    rows: Sequence[TableRow],
    root: str | os.PathLike[str] | None = None,
) -> pd.DataFrame:
    """Make a table of metrics over seeds beside the paper's numbers, followed by the cited work.

    A row of which no run has ended has the status `missing`. Diverged seeds are counted in `status`, and excluded from
    means; λ is chosen by :func:`nfpi.results.tables.summaries.choose_best`.

    Args:
        metrics: result of :func:`nfpi.results.recorded.collect.collect`, in any order.
        table: settings of the table.
        reference: the paper's numbers of all tables (:func:`read_reference`).
        rows: the rows with their runs, in order.
        root: the folder results/{preset} that contains the runs, whose predictions are used to compare accuracies in a
            table of one seed; None: they are not compared.

    Returns:
        A frame with the columns :func:`nfpi.results.tables.columns.table_columns`.

    Raises:
        TableError: a metric of a run has two values, a cell two reference values, a validation value is missing, or
            predictions are of different images.
        MetricsError: a file does not contain predictions.
    """
    known = _index_reference(reference)
    shown: list[MeasuredRow] = []
    for experiment in dict.fromkeys(row.experiment for row in rows):
        of_experiment = [_measure(metrics, row, table) for row in rows if row.experiment == experiment]
        _mark_best(of_experiment, table)
        if table.best_only and any(measured.is_best for measured in of_experiment):
            of_experiment = [measured for measured in of_experiment if measured.is_best]
        shown += of_experiment
    predictions = RunPredictions(root, {run.folder for run in list_runs_to_compare(rows, table.metrics)})
    compared = [(measured.row.dataset, measured.summaries) for measured in shown]
    comparisons = compare_with_best(compared, table.metrics, predictions)
    cells = [_make_cells(measured, known) | more for measured, more in zip(shown, comparisons, strict=True)]
    first_cited = max((row.experiment for row in rows), default=-1) + 1
    for index, label in enumerate(table.literature, first_cited):
        cells += [{"experiment": index, **cited} for cited in _make_cited_rows(label, reference)]
    columns = table_columns(table.metrics)
    empty = {name: "" for name, kind in columns.items() if kind == "str"} | {"best": False}
    return pd.DataFrame([empty | row for row in cells], columns=list(columns)).astype(columns)


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the paper's numbers (workflow/reference/paper.csv).

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, REFERENCE_COLUMNS)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the csv file of a table written by :func:`nfpi.results.tables.layout.write_table`.

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, table_columns(list_metrics(read_header(path))))


def _measure(metrics: pd.DataFrame, row: TableRow, table: TableSettings) -> MeasuredRow:
    """Summarise the metrics of a row."""
    measured, diverged, finished = split_by_outcome(metrics, row)
    for name in table.metrics:
        _require_metric(finished, name)
    chosen_by = find_selecting_metric(table.best_by, is_trained_on_real_images=row.is_trained_on_real_images)
    summaries = {name: summarize(finished, name, row.split_ratio) for name in table.metrics}
    return MeasuredRow(row, measured, diverged, finished, summaries, chosen_by, summarize(finished, chosen_by))


def _make_cells(measured: MeasuredRow, known: Mapping[Hashable, float]) -> dict[str, Any]:
    """Return the cells of a row by column, without comparisons."""
    cells = {name: column.value(measured) for name, column in ROW_COLUMNS.items()}
    for name, ours in measured.summaries.items():
        paper = _find_reference_value(known, measured.row, name)
        cells |= {form.format(name): value(ours, paper) for form, (_, value) in METRIC_COLUMNS.items()}
    return cells


def _require_metric(finished: pd.DataFrame, name: str) -> None:
    """Check that runs have a metric of the project if they have others that are computed from the same predictions.

    Raises:
        TableError: a run was evaluated before the metric was added to the project.
    """
    prefix = GENERATED_PREFIX if name.startswith(GENERATED_PREFIX) else ""
    computed = {f"{prefix}{metric}" for metric in list_computed_metrics()}
    if name not in computed:
        return
    for run, rows in finished.groupby("run"):
        names = set(rows["metric"])
        if name not in names and names & computed:
            raise TableError(f"{run}: expected {name} in metrics.json, received none: {_MEASURE_AGAIN}")


def _mark_best(of_experiment: Sequence[MeasuredRow], table: TableSettings) -> None:
    """Mark the row that is best on the validation split.

    Raises:
        TableError: the table names the metric that selects λ, and a row has metrics but not this one.
    """
    scored = [measured for measured in of_experiment if measured.validation.count]
    for measured in of_experiment:
        measured.candidates = len(scored)
        has_values = any(summary.count for summary in measured.summaries.values())
        if table.best_by is not None and len(of_experiment) > 1 and has_values and not measured.validation.count:
            run = _find_selecting_run(measured.row, table.best_by).folder
            expected = f"expected {measured.chosen_by} in metrics.json"
            raise TableError(f"{run}: best_by: {expected}, received none: {_MEASURE_AGAIN}")
    if scored:
        higher_is_better = metric(scored[0].chosen_by).higher_is_better
        best = choose_best([measured.score for measured in scored], higher_is_better=higher_is_better)
        if best is not None:
            scored[best].is_best = True


def _find_selecting_run(row: TableRow, best_by: str) -> Run:
    """Return a run whose metrics contain the one that selects λ."""
    return row.flow_runs[-1] if row.flow_runs and metric(best_by).model == "flow" else row.runs[-1]


def _make_cited_rows(label: str, reference: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a cited work: one per data set with known numbers, or a single row without numbers."""
    cited = reference[reference["row"] == label]
    cells: dict[str, Any] = {"row": label, "status": "cited"}
    if cited.empty:
        return [cells]
    return [
        cells | {"dataset": dataset} | {f"paper_{row['metric']}": row["value"] for row in rows.to_dict("records")}
        for dataset, rows in cited.groupby("dataset", sort=False)
    ]


def _index_reference(reference: pd.DataFrame) -> dict[Hashable, float]:
    """Index the paper's values of all tables.

    The key of a flow is (data set, flow, prior as named in paths, λ, classifier trained on generated images, metric),
    that of a classifier trained on real images (data set, classifier, augmentation, metric).
    """
    values: dict[Hashable, float] = {}
    for row in reference.dropna(subset=["value"]).to_dict("records"):
        if not (row["prior"] or row["classifier"]):
            continue  # cited work is looked up by its label
        key: tuple[str, ...] = (row["dataset"], row["classifier"], row["augmentation"], row["metric"])
        if row["prior"]:
            weight = "" if math.isnan(row["lambda"]) else format_weight(row["lambda"])
            key = (row["dataset"], row["flow"], row["prior"], weight, row["classifier"], row["metric"])
        if values.setdefault(key, row["value"]) != row["value"]:
            where = ", ".join(key[:-1])
            raise TableError(f"reference: {row['metric']} of {where} is both {values[key]} and {row['value']}")
    return values


def _find_reference_value(known: Mapping[Hashable, float], row: TableRow, name: str) -> float:
    """Return the paper's value of a metric of a row, NaN if there is none."""
    if row.is_trained_on_real_images:
        return known.get((row.dataset, row.classifier, row.augmentation, name), math.nan)
    run = row.flow_runs[0]
    assert run.weight is not None
    weights = [format_weight(run.weight)] if row.weight is not None else ["", format_weight(run.weight)]
    for weight, classifier in itertools.product(weights, ("", row.classifier)):
        value = known.get((run.dataset, run.flow, run.prior, weight, classifier, name))
        if value is not None:
            return value
        if (run.dataset, run.flow, run.prior, "", classifier, name) in known:
            where = f"{name} of {run.dataset}, {run.flow}, {run.prior}"
            raise TableError(f"reference: {where}: expected λ, received none")
    return math.nan
