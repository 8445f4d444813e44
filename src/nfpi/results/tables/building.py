"""Tables of metrics over seeds as frames: beside the paper's numbers, and with a comparison of their rows.

A table has one row for each experiment and λ, or for each experiment at its best λ. Differences are in the metric's
unit. Unknown cells are empty.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import ACCURACIES, metric
from nfpi.results.recorded.csv_files import read_csv, read_header
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.statistics.significance import Comparison, holm, mcnemar, paired_t
from nfpi.results.tables.columns import METRIC_COLUMNS, NOTED_COLUMNS, ROW_COLUMNS, list_metrics, table_columns
from nfpi.results.tables.rows import TableRow
from nfpi.results.tables.summaries import MeasuredRow, TableError, mark_best, measure_row
from nfpi.runs import Run

_TEXTS = ("table", "row", "dataset", "flow", "prior", "classifier", "augmentation", "metric", "source")
REFERENCE_COLUMNS = dict.fromkeys(_TEXTS, "str") | {"lambda": "float64", "value": "float64"}
"""Columns of the paper's numbers and their types; flow, prior and λ are empty for classifiers trained on real images,
and classifier and augmentation too for cited work. λ may be empty for a prior without λ, whose runs have λ = 0."""

FindPredictions = Callable[[Run], Predictions | None]
"""Returns the predictions of a run; None: there are none."""


def accuracy_table(
    metrics: pd.DataFrame,
    table: TableSettings,
    reference: pd.DataFrame,
    rows: Sequence[TableRow],
    read: FindPredictions = lambda run: None,
) -> pd.DataFrame:
    """Make a table of metrics over seeds beside the paper's numbers, followed by the cited work.

    A row of which no run has ended has the status `missing`. Diverged seeds are counted in `status`, and excluded from
    means; λ is chosen by :func:`nfpi.results.tables.summaries.mark_best`.

    Args:
        metrics: result of :func:`nfpi.results.recorded.runs.collect`, in any order.
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


# ---- comparison of rows with the best ------------------------------------------------------------------------

NO_PREDICTIONS = "no predictions"
"""Recorded in place of the name of the test if predictions are missing."""


@dataclass(frozen=True)
class _Pair:
    """Indices of two compared rows, and of the best row of their metric and data set."""

    metric: str
    first: int
    second: int
    best: int
    comparison: Comparison


def compare_with_best(
    rows: Sequence[MeasuredRow], names: Sequence[str], read: FindPredictions = lambda run: None
) -> list[dict[str, Any]]:
    """Compare all rows of a table with the best one on their data set, for each metric whose `higher_is_better` is set.

    Times are excluded, since their variance is not due to seeds and images.

    Rows on one data set are compared over their common seeds, if there are two or more, by a paired t test over seeds;
    in a table of one seed, accuracies are compared by McNemar's test on the predictions for the same test images. The t
    test is corrected for the overlap of splits that the seeds draw from the same images. The values that are tested
    also choose the best row, and so which pairs are compared. Holm's adjustment is therefore over all pairs of rows and
    all metrics of the table. If it were over the comparisons with the best row only, rows without a true difference
    would seem to differ in more than 5 % of the tables (9 % for five rows). An imported model with several seeds is not
    compared, since these are draws of noise.

    Args:
        rows: the measured rows.
        names: names of the metrics to compare.
        read: returns the predictions of a run; None: there are none.

    Returns:
        For each row and compared metric, the columns `{metric}_test`, the name of the test, and `{metric}_p`, the
        p-value adjusted by Holm's method. The best row has no `{metric}_p`. If a test lacks predictions,
        `{metric}_test` is :data:`NO_PREDICTIONS`.

    Raises:
        TableError: predictions are of different images.
        MetricsError: a file does not contain predictions.
    """
    read_once = functools.cache(read)
    pairs = [pair for name in names for pair in _compare_pairs(rows, name, read_once)]
    columns: list[dict[str, Any]] = [{} for _ in rows]
    adjusted = holm([pair.comparison.p_value for pair in pairs])
    for pair, p_value in zip(pairs, adjusted, strict=True):
        name, test = pair.metric, pair.comparison.test
        if test == NO_PREDICTIONS:
            for index in (pair.first, pair.second):
                columns[index].setdefault(f"{name}_test", test)
        elif pair.best in (pair.first, pair.second) and not math.isnan(p_value):
            other = pair.first + pair.second - pair.best
            columns[pair.best][f"{name}_test"] = test
            columns[other] |= {f"{name}_test": test, f"{name}_p": p_value}
    return columns


def _compare_pairs(rows: Sequence[MeasuredRow], name: str, read: FindPredictions) -> Iterator[_Pair]:
    """Yield all pairs of rows on one data set that have a value of a metric."""
    entry = metric(name)
    if entry.higher_is_better is None or entry.is_time:
        return
    summaries = [measured.summaries[name] for measured in rows]
    # several draws of an imported model are one training
    known = [index for index, summary in enumerate(summaries) if summary.count == len(summary.values)]
    for dataset in dict.fromkeys(rows[index].row.dataset for index in known):
        members = [index for index in known if rows[index].row.dataset == dataset]
        sign = 1 if entry.higher_is_better else -1
        best = max(members, key=lambda index: sign * rows[index].summaries[name].mean)
        for first, second in itertools.combinations(members, 2):
            comparison = _compare_rows(rows[first], rows[second], name, read)
            yield _Pair(name, first, second, best, comparison)


def _compare_rows(first: MeasuredRow, second: MeasuredRow, name: str, read: FindPredictions) -> Comparison:
    """Compare two rows by a paired t test over seeds, or accuracies in a table of one seed by McNemar's test."""
    values = [measured.summaries[name].values for measured in (first, second)]
    comparison = paired_t(*values, split_ratio=max(first.row.split_ratio, second.row.split_ratio))
    runs = [run for measured in (first, second) if name in ACCURACIES for run in measured.row.runs_of(name)]
    if len(runs) != 2 or comparison.seeds != 1:  # the table has several seeds
        return comparison
    a, b = map(read, runs)
    if a is None or b is None:
        return replace(comparison, test=NO_PREDICTIONS)
    check_same_images(runs, a, b)
    return mcnemar(a.is_correct, b.is_correct)


def check_same_images(runs: Sequence[Run], first: Predictions, second: Predictions) -> None:
    """Check that the predictions of two runs are for the same test images.

    Raises:
        TableError: they have different labels.
    """
    if not np.array_equal(first.label, second.label):
        names = ", ".join(run.folder for run in runs)
        raise TableError(f"{names}: expected predictions of the same test images, received different labels")


def is_compared(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table took part in the comparison with the best one in a metric."""
    return ~frame[f"{name}_test"].isin(["", NO_PREDICTIONS])


def is_equal_to_best(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table do not differ significantly from the best one in a metric."""
    return is_compared(frame, name) & (frame[f"{name}_p"] >= SIGNIFICANCE_LEVEL)


def is_worse_than_best(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table are significantly worse than the best one in a metric."""
    return is_compared(frame, name) & (frame[f"{name}_p"] < SIGNIFICANCE_LEVEL)
