"""Tables of metrics over seeds, beside the paper's numbers.

A table has one row for each experiment and λ, or for each experiment at its best λ. Differences are in the metric's
unit. Unknown cells are empty.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import GENERATED_PREFIX, VALIDATION_PREFIX, list_computed_metrics, metric
from nfpi.results.recorded.csv_files import read_csv, read_header
from nfpi.results.tables.comparisons import RunPredictions, compare_with_best
from nfpi.results.tables.rows import TableRow, list_runs_to_compare
from nfpi.results.tables.summaries import Score, Summary, TableError, choose_best, split_by_outcome, summarize
from nfpi.runs import Run, format_weight

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
    "split_ratio": "float64",
}
"""Columns of every table and their types.

`images` is the number of test images of one run. `validation` is the mean of the metric `chosen_by`, by which λ is
chosen on the validation split; `best` marks the chosen λ of an experiment; `candidates` is the number of λ to choose
from. `split_ratio` is the number of test images per training image if the seeds' splits overlap, by which intervals and
tests over seeds are corrected; 0: they are not corrected.
"""

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

_COUNT = "_seeds"


def table_columns(metrics: Iterable[str]) -> dict[str, str]:
    """Return the columns, with their types, of a table of these metrics.

    Suffixes of the columns of a metric: `_seeds` is the number of seeds of the mean, `_std` the standard deviation over
    them (n − 1), `_low` and `_high` are the bounds of the 95 % confidence interval, and `_difference` is ours − the
    paper's. `_test` names the test that compares the row with the best one in this metric, and `_p` is its adjusted
    p-value, empty for the best row (:func:`nfpi.results.tables.comparisons.compare_with_best`).
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


def list_metrics(columns: Iterable[str]) -> list[str]:
    """Return the metrics of a table with these columns."""
    return [column.removesuffix(_COUNT) for column in columns if column.endswith(_COUNT)]


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
        A frame with the columns :func:`table_columns`.

    Raises:
        TableError: a metric of a run has two values, a cell two reference values, a validation value is missing, or
            predictions are of different images.
        MetricsError: a file does not contain predictions.
    """
    known = _index_reference(reference)
    shown: list[_Row] = []
    for experiment in dict.fromkeys(row.experiment for row in rows):
        experiment_rows = [_make_row(metrics, row, table, known) for row in rows if row.experiment == experiment]
        _mark_best(experiment_rows, must_have_values=table.best_by is not None)
        if table.best_only and any(row.cells["best"] for row in experiment_rows):
            experiment_rows = [row for row in experiment_rows if row.cells["best"]]
        shown += experiment_rows
    predictions = RunPredictions(root, {run.folder for run in list_runs_to_compare(rows, table.metrics)})
    compared = [(str(row.cells["dataset"]), row.summaries) for row in shown]
    comparisons = compare_with_best(compared, table.metrics, predictions)
    cells = [row.cells | comparison for row, comparison in zip(shown, comparisons, strict=True)]
    first_cited = max((row.experiment for row in rows), default=-1) + 1
    for index, label in enumerate(table.literature, first_cited):
        cells += [{"experiment": index, **cited} for cited in _make_cited_rows(label, reference)]
    columns = table_columns(table.metrics)
    empty = {name: "" for name, kind in columns.items() if kind == "str"}
    return pd.DataFrame([empty | row for row in cells], columns=list(columns)).astype(columns)


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the paper's numbers (workflow/reference/paper.csv).

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, REFERENCE_COLUMNS)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the csv file of a table written by :func:`nfpi.results.markup.files.write_table`.

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, table_columns(list_metrics(read_header(path))))


@dataclass(frozen=True)
class _Row:
    """A row of a table, before comparisons.

    Attributes:
        cells: cells by column.
        summaries: summaries of its metrics, by name.
        validation: summary of the validation metric by which λ is chosen.
        ended: number of seeds with metrics or a divergence.
        diverged: number of diverged seeds.
        folder: folder of one of its runs, for error messages.
    """

    cells: dict[str, Any]
    summaries: dict[str, Summary]
    validation: Summary
    ended: int
    diverged: int
    folder: str


def _make_row(metrics: pd.DataFrame, row: TableRow, table: TableSettings, known: Mapping[Hashable, float]) -> _Row:
    """Make one row, without comparisons."""
    measured, diverged, finished = split_by_outcome(metrics, row)
    for name in table.metrics:
        _require_metric(finished, name)
    seeds = measured["seed"].nunique()
    chosen_by = "validation_top1" if row.is_trained_on_real_images else "validation_nf_acc"
    if table.best_by is not None:
        chosen_by = f"{VALIDATION_PREFIX}{table.best_by}"
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
        "images": _count_images(finished),
        "status": _describe_outcome(diverged["status"].tolist(), seeds),
        "validation": validation.mean,
        "chosen_by": chosen_by,
        "best": False,
        "split_ratio": row.split_ratio,
    }
    summaries = {name: summarize(finished, name, row.split_ratio) for name in table.metrics}
    for name, ours in summaries.items():
        paper = _find_reference_value(known, row, name)
        cells |= {
            name: ours.mean,
            f"{name}_std": ours.std,
            f"{name}_low": ours.interval[0],
            f"{name}_high": ours.interval[1],
            f"{name}{_COUNT}": ours.count,
            f"paper_{name}": paper,
            f"{name}_difference": ours.mean - paper,
        }
    return _Row(cells, summaries, validation, seeds, len(diverged), _find_selecting_run(row, table).folder)


def _find_selecting_run(row: TableRow, table: TableSettings) -> Run:
    """Return a run whose metrics contain the one that selects λ."""
    is_of_flow = row.flow_runs and table.best_by is not None and metric(table.best_by).model == "flow"
    return row.flow_runs[-1] if is_of_flow else row.runs[-1]


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


def _mark_best(experiment_rows: list[_Row], *, must_have_values: bool) -> None:
    """Mark the row that is best on the validation split.

    Raises:
        TableError: with `must_have_values`, a row has metrics but no validation value.
    """
    scored = [row for row in experiment_rows if row.validation.count]
    if must_have_values and len(experiment_rows) > 1:
        for row in experiment_rows:
            if not row.validation.count and any(summary.count for summary in row.summaries.values()):
                expected = f"expected {row.cells['chosen_by']} in metrics.json"
                raise TableError(f"{row.folder}: best_by: {expected}, received none: {_MEASURE_AGAIN}")
    for row in experiment_rows:
        row.cells["candidates"] = len(scored)
    if not scored:
        return
    higher_is_better = metric(scored[0].cells["chosen_by"]).higher_is_better
    scores = [Score(row.validation.mean, row.diverged, row.ended) for row in scored]
    best = choose_best(scores, higher_is_better=higher_is_better)
    if best is not None:
        scored[best].cells["best"] = True


def _make_cited_rows(label: str, reference: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a cited work: one per data set with known numbers, or a single row without numbers."""
    cited = reference[reference["row"] == label]
    empty = dict.fromkeys(("dataset", "flow", "prior", "classifier", "augmentation"), "")
    cells: dict[str, Any] = empty | {"row": label, "status": "cited", "best": False}
    if cited.empty:
        return [cells]
    return [
        cells | {"dataset": dataset} | {f"paper_{row['metric']}": row["value"] for row in rows.to_dict("records")}
        for dataset, rows in cited.groupby("dataset", sort=False)
    ]


def _count_images(measured: pd.DataFrame) -> int | None:
    """Return the number of images of each run of a row; None if it is unknown or varies."""
    counts = measured["n"].dropna().unique()
    return int(counts[0]) if len(counts) == 1 else None


def _describe_outcome(diverged: list[str], seeds: int) -> str:
    """Describe the outcome of the runs of a row."""
    if not seeds:
        return "missing"
    if not diverged:
        return "ok"
    return diverged[0] if seeds == 1 else f"{len(diverged)} of {seeds} seeds diverged"


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
