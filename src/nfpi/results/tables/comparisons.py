"""Comparison of the rows of a table with the best one, for each metric.

Rows on one data set are compared over their common seeds, if there are two or more, by a paired t test over seeds; in a
table of one seed, accuracies are compared by McNemar's test on the predictions for the same test images. The t test is
corrected for the overlap of splits that the seeds draw from the same images. The values that are tested also choose the
best row, and so which pairs are compared. Holm's adjustment is therefore over all pairs of rows and all metrics of the
table. If it were over the comparisons with the best row only, rows without a true difference would seem to differ in
more than 5 % of the tables (9 % for five rows).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nfpi.config.metrics import ACCURACIES, metric
from nfpi.results.recorded.predictions import read_predictions
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.statistics.significance import Comparison, holm, mcnemar, paired_t
from nfpi.results.tables.summaries import Summary, TableError
from nfpi.runs import PREDICTIONS_FILE
from nfpi.runtime.divergence import Diverged

NO_PREDICTIONS = "no predictions"
"""Recorded in place of the name of the test if predictions are missing."""


_ComparedRow = tuple[str, Mapping[str, Summary]]
"""The data set of a row, and its metrics by name."""


@dataclass
class RunPredictions:
    """The test images that runs classify correctly, from their predictions.npz; each file is read once.

    Args:
        root: the folder results/{preset} that contains the runs; None: there are no predictions.
        folders: folders of the runs that McNemar's test may compare, relative to `root`; empty unless all runs of the
            table have the same seed, see :func:`nfpi.results.tables.rows.list_runs_to_compare`.
    """

    root: str | os.PathLike[str] | None
    folders: Collection[str]
    _correct: dict[str, np.ndarray | None] = field(default_factory=dict, init=False)
    _labels: dict[str, tuple[Path, np.ndarray]] = field(default_factory=dict, init=False)

    def read_correct(self, dataset: str, folder: str, accuracy: float) -> np.ndarray | None:
        """Return whether each test image is classified correctly, (N,) bool; None: there are no predictions.

        Args:
            dataset: data set of the run; all its runs must have the same labels in the same order.
            folder: folder of the run.
            accuracy: accuracy of the run in metrics.json, in percent.

        Raises:
            TableError: the predictions have other labels or another accuracy, or the run diverged.
            MetricsError: the file does not contain predictions.
        """
        if self.root is None:
            return None
        if folder not in self._correct:
            path = Path(self.root) / folder / PREDICTIONS_FILE
            self._correct[folder] = self._read(dataset, path, accuracy) if path.is_file() else None
        return self._correct[folder]

    def _read(self, dataset: str, path: Path, accuracy: float) -> np.ndarray:
        try:
            predictions = read_predictions(path)
        except Diverged as fault:  # passed on, it would mark the table itself as diverged
            raise TableError(
                f"{path}: expected {accuracy:.2f} % correct, received a run that diverged: {fault}"
            ) from None
        other, labels = self._labels.setdefault(dataset, (path, predictions.label))
        if not np.array_equal(labels, predictions.label):
            raise TableError(f"{path}: expected the labels of {other}, image by image, received different ones")
        right: np.ndarray = predictions.predicted == predictions.label
        if not right.size or abs(100 * float(right.mean()) - accuracy) > 50 / right.size:  # half an image
            received = f"{100 * float(right.mean()):.2f} %" if right.size else "no image"
            raise TableError(f"{path}: expected {accuracy:.2f} % correct as in metrics.json, received {received}")
        return right


@dataclass(frozen=True)
class _Pair:
    """Indices of two compared rows, and of the best row of their metric and data set."""

    metric: str
    first: int
    second: int
    best: int
    comparison: Comparison


def compare_with_best(
    rows: Sequence[_ComparedRow], names: Sequence[str], predictions: RunPredictions
) -> list[dict[str, Any]]:
    """Compare all rows of a table with the best one on their data set, for each metric whose `higher_is_better` is set.

    Times are excluded, since their variance is not due to seeds and images.

    Args:
        rows: the data set of each row, and its metrics by name.
        names: names of the metrics to compare.
        predictions: predictions for the test images.

    Returns:
        For each row and compared metric, the columns `{metric}_test`, the name of the test, and `{metric}_p`, the
        p-value adjusted by Holm's method. The best row has no `{metric}_p`. If a test lacks predictions,
        `{metric}_test` is :data:`NO_PREDICTIONS`.

    Raises:
        TableError: predictions are of different images, or contradict metrics.json.
        MetricsError: a file does not contain predictions.
    """
    pairs = [pair for name in names for pair in _compare_pairs(rows, name, predictions)]
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


def _compare_pairs(rows: Sequence[_ComparedRow], name: str, predictions: RunPredictions) -> Iterator[_Pair]:
    """Yield all pairs of rows on one data set that have a value of a metric."""
    entry = metric(name)
    if entry.higher_is_better is None or entry.is_time:
        return
    known = [index for index, (_, summaries) in enumerate(rows) if summaries[name].count]
    for dataset in dict.fromkeys(rows[index][0] for index in known):
        members = [index for index in known if rows[index][0] == dataset]
        sign = 1 if entry.higher_is_better else -1
        best = max(members, key=lambda index: sign * rows[index][1][name].mean)
        for first, second in itertools.combinations(members, 2):
            comparison = _compare_rows(dataset, rows[first][1][name], rows[second][1][name], predictions, name)
            yield _Pair(name, first, second, best, comparison)


def _compare_rows(dataset: str, first: Summary, second: Summary, predictions: RunPredictions, name: str) -> Comparison:
    """Compare two rows by a paired t test over seeds, or accuracies in a table of one seed by McNemar's test."""
    ratio = max(first.split_ratio, second.split_ratio)
    comparison = paired_t(first.values, second.values, split_ratio=ratio)
    runs = [(summary.folders[seed], summary.values[seed]) for summary in (first, second) for seed in summary.values]
    can_compare_images = comparison.seeds == 1 and all(folder in predictions.folders for folder, _ in runs)
    if not can_compare_images or name not in ACCURACIES:
        return comparison
    right = [predictions.read_correct(dataset, *run) for run in runs]
    if right[0] is None or right[1] is None:
        return replace(comparison, test=NO_PREDICTIONS)
    return mcnemar(right[0], right[1])


def is_compared(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table took part in the comparison with the best one in a metric."""
    return ~frame[f"{name}_test"].isin(["", NO_PREDICTIONS])


def is_equal_to_best(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table do not differ significantly from the best one in a metric."""
    return is_compared(frame, name) & (frame[f"{name}_p"] >= SIGNIFICANCE_LEVEL)
