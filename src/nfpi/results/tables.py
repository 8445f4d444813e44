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

import numpy as np
import pandas as pd

from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import metric
from nfpi.results.csv_files import read_csv, read_header
from nfpi.results.intervals import UNKNOWN, t_interval, wilson_interval
from nfpi.results.rows import TableRow
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
    "best": "bool",
}
"""Columns that every table has, with their types.

`images` counts the test images that a value of one run is measured on. `validation` is what is chosen by: NF-Acc, or
the top-1 of a classifier of real images, on the validation split; `best` marks the λ of an experiment where it is
highest.
"""

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


class TableError(ValueError):
    """Two values for one cell, or a frame that is no table of results; the message is one line."""


def table_columns(metrics: Iterable[str]) -> dict[str, str]:
    """Columns of a table of these metrics, with their types.

    `_seeds` counts the runs behind a mean, `_std` is the standard deviation over them (n − 1), `_low` and `_high` bound
    the 95 % confidence interval, `_difference` is ours − the paper's.
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
        }.items()
    }


def metrics_of_table(columns: Iterable[str]) -> list[str]:
    """The metrics that a table with these columns shows."""
    return [column.removesuffix(_COUNT) for column in columns if column.endswith(_COUNT)]


def accuracy_table(
    metrics: pd.DataFrame, table: TableSettings, reference: pd.DataFrame, rows: Sequence[TableRow]
) -> pd.DataFrame:
    """The metrics of a table over seeds, one row for each (experiment, λ), beside the paper's; then the cited work.

    A row whose runs are not among the metrics has the status `missing`. Seeds that diverged are left out of the means
    and counted in `status`.

    Args:
        metrics: what :func:`nfpi.results.collect.collect` returns, in any order.
        table: what is shown.
        reference: the paper's numbers (:func:`read_reference`), whichever table they stand in.
        rows: the rows with their runs, in the order in which they are shown.

    Returns:
        A frame with the columns :func:`table_columns`.

    Raises:
        TableError: two values for one metric of one run, or two different reference values for one cell.
    """
    known = _reference_values(reference)
    made: list[dict[str, Any]] = []
    for experiment in dict.fromkeys(row.experiment for row in rows):
        of_experiment = [_cells(metrics, row, table.metrics, known) for row in rows if row.experiment == experiment]
        _mark_best(of_experiment)
        if table.best_only and any(cells["best"] for cells in of_experiment):
            of_experiment = [cells for cells in of_experiment if cells["best"]]
        made += of_experiment
    first_cited = max((row.experiment for row in rows), default=-1) + 1
    for index, label in enumerate(table.literature, first_cited):
        made += [{"experiment": index, **cells} for cells in _cited_rows(label, reference)]
    columns = table_columns(table.metrics)
    return pd.DataFrame(made, columns=list(columns)).astype(columns)


def read_reference(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The paper's numbers (workflow/reference/paper.csv).

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, REFERENCE_COLUMNS)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """A table that :func:`nfpi.results.markup.write_table` wrote as csv, whichever metrics it shows.

    Raises:
        CsvError: a column is missing or of another type.
    """
    return read_csv(path, table_columns(metrics_of_table(read_header(path))))


def _cells(
    metrics: pd.DataFrame, row: TableRow, shown: Iterable[str], known: Mapping[Hashable, float]
) -> dict[str, Any]:
    """One row."""
    measured, diverged, finished = split_by_outcome(metrics, row)
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
        "status": _status(diverged["status"].tolist(), measured["seed"].nunique()),
        "validation": _over_seeds(finished, "validation_top1" if row.is_of_real_images else "validation_nf_acc").mean,
        "best": False,
    }
    for name in shown:
        ours, paper = _over_seeds(finished, name), _reference_value(known, row, name)
        cells |= {
            name: ours.mean,
            f"{name}_std": ours.std,
            f"{name}_low": ours.interval[0],
            f"{name}_high": ours.interval[1],
            f"{name}{_COUNT}": ours.count,
            f"paper_{name}": paper,
            f"{name}_difference": ours.mean - paper,
        }
    return cells


def _mark_best(of_experiment: list[dict[str, Any]]) -> None:
    """Mark the row that is best on the validation split, the first one of equals."""
    scored = [cells for cells in of_experiment if not math.isnan(cells["validation"])]
    if scored:
        max(scored, key=lambda cells: float(cells["validation"]))["best"] = True


def _cited_rows(label: str, reference: pd.DataFrame) -> list[dict[str, Any]]:
    """A row a data set for which a number of the cited work is known, or one without any."""
    cited = reference[reference["row"] == label]
    empty = dict.fromkeys(("dataset", "flow", "prior", "classifier", "augmentation"), "")
    cells: dict[str, Any] = empty | {"row": label, "status": "cited", "best": False}
    if cited.empty:
        return [cells]
    return [
        cells | {"dataset": dataset} | {f"paper_{row['metric']}": row["value"] for row in rows.to_dict("records")}
        for dataset, rows in cited.groupby("dataset", sort=False)
    ]


@dataclass(frozen=True)
class _Summary:
    """Mean, standard deviation and confidence interval of one metric; NaN and no count where unknown."""

    count: int | None
    mean: float
    std: float
    interval: tuple[float, float]


def split_by_outcome(metrics: pd.DataFrame, row: TableRow) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What a row's runs measured; one line for each seed that diverged; and what the other seeds measured."""
    measured = metrics[metrics["run"].isin([run.folder for run in row.runs])]
    diverged = measured[measured["status"] != "ok"].drop_duplicates("seed")
    return measured, diverged, measured[~measured["seed"].isin(diverged["seed"])]


def values_over_seeds(measured: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one metric, one a seed in ascending order; of the classifiers' values where they have some.

    Raises:
        TableError: a seed has two values.
    """
    rows = measured[measured["metric"] == name]
    of_classifier = rows["classifier"] != ""
    # A floating-point sum depends on the order of its terms; sorted, it does not depend on that of the files.
    rows = (rows[of_classifier] if of_classifier.any() else rows).sort_values("seed")
    if rows["seed"].duplicated().any():
        row = rows[rows["seed"].duplicated()].iloc[0]
        raise TableError(f"{row['run']}: expected one value of {name}, received more")
    return rows


def _over_seeds(measured: pd.DataFrame, name: str) -> _Summary:
    """Mean over seeds, and their standard deviation with n − 1."""
    rows = values_over_seeds(measured, name)
    values = rows["value"].to_numpy(dtype="float64")
    if not values.size:
        return _Summary(None, math.nan, math.nan, UNKNOWN)
    std = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return _Summary(values.size, float(values.mean()), std, _interval(values, rows["n"], name))


def _interval(values: np.ndarray, images: pd.Series, name: str) -> tuple[float, float]:
    """The 95 % interval: over seeds, or of one accuracy on n images."""
    if values.size > 1:
        low, high = t_interval(values)
        return (max(low, 0.0), min(high, 100.0)) if metric(name).is_share else (low, high)
    if not metric(name).is_share or images.isna().any():
        return UNKNOWN
    return wilson_interval(float(values[0]), int(images.iloc[0]))


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
    return diverged[0] if seeds == 1 else f"diverged in {len(diverged)} of {seeds} seeds"


def _reference_values(reference: pd.DataFrame) -> dict[Hashable, float]:
    """The paper's values over all its tables.

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
    """The paper's value of a metric of a row, NaN where it gives none."""
    if row.is_of_real_images:
        return known.get((row.dataset, row.classifier, row.augmentation, name), math.nan)
    run = row.flow_runs[0]
    assert run.weight is not None
    of_flow = (run.dataset, run.flow, run.prior, format_weight(run.weight))
    of_classifier = known.get((*of_flow, row.classifier, name), math.nan)
    return known.get((*of_flow, "", name), of_classifier)
