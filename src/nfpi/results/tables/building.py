"""Tables of metrics over seeds, beside the paper's numbers.

A table has one row for each experiment and λ, or for each experiment at its best λ. Differences are in the metric's
unit. Unknown cells are empty.
"""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from nfpi.config.experiments import TableSettings
from nfpi.results.recorded.csv_files import read_csv, read_header
from nfpi.results.tables.columns import METRIC_COLUMNS, NOTED_COLUMNS, ROW_COLUMNS, list_metrics, table_columns
from nfpi.results.tables.comparisons import FindPredictions, compare_with_best
from nfpi.results.tables.rows import TableRow
from nfpi.results.tables.summaries import MeasuredRow, TableError, mark_best, measure_row

_TEXTS = ("table", "row", "dataset", "flow", "prior", "classifier", "augmentation", "metric", "source")
REFERENCE_COLUMNS = dict.fromkeys(_TEXTS, "str") | {"lambda": "float64", "value": "float64"}
"""Columns of the paper's numbers and their types; flow, prior and λ are empty for classifiers trained on real images,
and classifier and augmentation too for cited work. λ may be empty for a prior without λ, whose runs have λ = 0."""


def accuracy_table(
    metrics: pd.DataFrame,
    table: TableSettings,
    reference: pd.DataFrame,
    rows: Sequence[TableRow],
    read: FindPredictions = lambda run: None,
) -> pd.DataFrame:
    """Make a table of metrics over seeds beside the paper's numbers, followed by the cited work.

    A row of which no run has ended has the status `missing`. Diverged seeds are counted in `status`, and excluded from
    means; λ is chosen by :func:`nfpi.results.tables.summaries.choose_best`.

    Args:
        metrics: result of :func:`nfpi.results.recorded.collect.collect`, in any order.
        table: settings of the table.
        reference: the paper's numbers of all tables (:func:`read_reference`).
        rows: the rows with their runs, in order.
        read: returns the predictions of a run, by which accuracies are compared in a table of one seed; None: there are
            none.

    Returns:
        A frame with the columns :func:`nfpi.results.tables.columns.table_columns`.

    Raises:
        TableError: a metric of a run has two values, a cell two reference values, a validation value is missing, or
            predictions are of different images.
        MetricsError: a file does not contain predictions.
    """
    known = reference.to_dict("records")
    shown: list[MeasuredRow] = []
    for experiment in dict.fromkeys(row.experiment for row in rows):
        of_experiment = [
            measure_row(metrics, row, table.metrics, table.best_by) for row in rows if row.experiment == experiment
        ]
        mark_best(of_experiment, must_have_values=table.best_by is not None)
        if table.best_only and any(measured.is_best for measured in of_experiment):
            of_experiment = [measured for measured in of_experiment if measured.is_best]
        shown += of_experiment
    comparisons = compare_with_best(shown, table.metrics, read)
    cells = [_make_cells(measured, known) | more for measured, more in zip(shown, comparisons, strict=True)]
    first_cited = max((row.experiment for row in rows), default=-1) + 1
    for index, label in enumerate(table.literature, first_cited):
        cells += [{"experiment": index, **cited} for cited in _make_cited_rows(label, reference)]
    noted = [name for name in NOTED_COLUMNS if any(pd.notna(row.get(name)) for row in cells)]
    columns = table_columns(table.metrics, noted)
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
    header = read_header(path)
    return read_csv(path, table_columns(list_metrics(header), header))


def _make_cells(measured: MeasuredRow, known: Sequence[Mapping[Hashable, Any]]) -> dict[str, Any]:
    """Return the cells of a row by column, without comparisons."""
    cells = {name: column.value(measured) for name, column in ROW_COLUMNS.items()}
    cells |= {name: getattr(measured, name) for name in NOTED_COLUMNS}
    for name, ours in measured.summaries.items():
        paper = find_reference_value(known, measured.row, name)
        cells |= {form.format(name): value(ours, paper) for form, (_, value) in METRIC_COLUMNS.items()}
    return cells


def _make_cited_rows(label: str, reference: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a cited work: one per data set with known numbers, or a single row without numbers."""
    cells: dict[str, Any] = {"row": label, "status": "cited"}
    by_dataset = reference[reference["row"] == label].groupby("dataset", sort=False)
    found = [
        cells | {"dataset": dataset} | dict(zip("paper_" + rows["metric"], rows["value"], strict=True))
        for dataset, rows in by_dataset
    ]
    return found or [cells]


def find_reference_value(reference: Iterable[Mapping[Hashable, Any]], row: TableRow, name: str) -> float:
    """Return the paper's value of a metric of a row, NaN if there is none.

    A flow is identified by data set, backbone, prior as named in paths, λ, and classifier trained on generated images;
    a classifier trained on real images by data set, classifier and augmentation.

    Args:
        reference: records of the paper's numbers, see :data:`REFERENCE_COLUMNS`.
        row: the row.
        name: name of the metric.

    Raises:
        TableError: there are several values, or one without λ for a prior that has a λ.
    """
    run = row.runs[0]
    identity: dict[str, Any] = {"dataset": row.dataset, "metric": name}
    if row.is_trained_on_real_images:
        identity |= {"prior": "", "classifier": row.classifier, "augmentation": row.augmentation}
    else:
        identity |= {"flow": run.flow, "prior": run.prior}
    found = [known for known in reference if identity.items() <= known.items() and not math.isnan(known["value"])]
    if not row.is_trained_on_real_images:
        found = [known for known in found if known["classifier"] in ("", row.classifier)]
        if row.weight is not None and any(math.isnan(known["lambda"]) for known in found):
            raise TableError(f"reference: {name} of {run.folder}: expected λ, received none")
        found = [known for known in found if math.isnan(known["lambda"]) or known["lambda"] == run.weight]
    values = sorted({known["value"] for known in found})
    if len(values) > 1:
        raise TableError(f"reference: {name} of {run.folder} is both {values[0]} and {values[1]}")
    return float(values[0]) if values else math.nan
