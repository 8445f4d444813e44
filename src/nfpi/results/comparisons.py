"""Which rows of a table differ from the best one, metric by metric.

Rows on one data set are compared on the seeds that they share: with two or more by a paired t test over the seeds, with
one by McNemar's test on the predictions for the same test images. The best row is chosen by the values that are tested,
so that a comparison with it is as good as one of all pairs: Holm's adjustment is over all pairs of rows, of all metrics
of the table. Otherwise equal rows would seem to differ in more than 5 % of the tables (9 % for five rows).
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

from nfpi.config.metrics import ACCURACIES, metric
from nfpi.results.predictions import read_predictions
from nfpi.results.significance import Comparison, holm, mcnemar, paired_t
from nfpi.results.summaries import Summary, TableError

NO_PREDICTIONS = "no predictions"
"""In the place of a test's name."""
FILE = "predictions.npz"
"""In the folder of a run."""


_Known = tuple[str, Mapping[str, Summary]]
"""The data set of a row, and its metrics by name."""


@dataclass
class RunPredictions:
    """Which test images some runs classify right; each file is read once.

    Args:
        root: the folder results/{preset} that the runs lie under; None: nothing is read.
        folders: of the runs, below it.
    """

    root: str | os.PathLike[str] | None
    folders: Collection[str]
    _right: dict[str, np.ndarray | None] = field(default_factory=dict, init=False)
    _labels: dict[str, tuple[Path, np.ndarray]] = field(default_factory=dict, init=False)

    def right(self, dataset: str, folder: str, accuracy: float) -> np.ndarray | None:
        """Return whether each test image is classified right, (N,) bool; None: there are no predictions.

        Args:
            dataset: of the run; all runs on it must have the same labels, image by image.
            folder: of the run.
            accuracy: what its metrics.json says, in percent.

        Raises:
            TableError: the labels are other ones, or the predictions have another accuracy.
            MetricsError: the file is something else.
        """
        if self.root is None:
            return None
        if folder not in self._right:
            path = Path(self.root) / folder / FILE
            self._right[folder] = self._read(dataset, path, accuracy) if path.is_file() else None
        return self._right[folder]

    def _read(self, dataset: str, path: Path, accuracy: float) -> np.ndarray:
        predictions = read_predictions(path)
        other, labels = self._labels.setdefault(dataset, (path, predictions.label))
        if not np.array_equal(labels, predictions.label):
            raise TableError(f"{path}: expected the labels of {other}, image by image, received others")
        right: np.ndarray = predictions.predicted == predictions.label
        if not right.size or abs(100 * float(right.mean()) - accuracy) > 50 / right.size:  # half an image
            received = f"{100 * float(right.mean()):.2f} %" if right.size else "no image"
            raise TableError(f"{path}: expected {accuracy:.2f} % right, as metrics.json says, received {received}")
        return right


@dataclass(frozen=True)
class _Pair:
    """Two rows, by their indices, with the index of the best row of their metric and data set."""

    metric: str
    first: int
    second: int
    best: int
    comparison: Comparison


def compare_with_best(
    rows: Sequence[_Known], names: Sequence[str], predictions: RunPredictions
) -> list[dict[str, Any]]:
    """Compare all rows of a table with the best one on their data set, in each metric that has a better direction.

    Measured times are left out: they are not a matter of seeds and images.

    Args:
        rows: the data set of each row, and its metrics by name.
        names: of the metrics to compare.
        predictions: for the test images.

    Returns:
        For each row and each metric that was compared the columns `_test`, the name of the test, and `_p`, p adjusted
        by Holm's method, which the best row has not. Without predictions that a test would need, `_test` says so.

    Raises:
        TableError: predictions do not belong together.
        MetricsError: a file is no predictions.
    """
    pairs = [pair for name in names for pair in _pairs(rows, name, predictions)]
    found: list[dict[str, Any]] = [{} for _ in rows]
    adjusted = holm([pair.comparison.p_value for pair in pairs])
    for pair, p_value in zip(pairs, adjusted, strict=True):
        name, test = pair.metric, pair.comparison.test
        if test == NO_PREDICTIONS:
            for index in (pair.first, pair.second):
                found[index].setdefault(f"{name}_test", test)
        elif pair.best in (pair.first, pair.second) and not math.isnan(p_value):
            other = pair.first + pair.second - pair.best
            found[pair.best][f"{name}_test"] = test
            found[other] |= {f"{name}_test": test, f"{name}_p": p_value}
    return found


def _pairs(rows: Sequence[_Known], name: str, predictions: RunPredictions) -> Iterator[_Pair]:
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
            comparison = _compare(dataset, rows[first][1][name], rows[second][1][name], predictions, name)
            yield _Pair(name, first, second, best, comparison)


def _compare(dataset: str, first: Summary, second: Summary, predictions: RunPredictions, name: str) -> Comparison:
    """Return a paired t test where two seeds are common; McNemar's for an accuracy of the one seed of a table."""
    comparison = paired_t(first.values, second.values)
    runs = [(summary.folders[seed], summary.values[seed]) for summary in (first, second) for seed in summary.values]
    of_one_seed = comparison.seeds == 1 and all(folder in predictions.folders for folder, _ in runs)
    if not of_one_seed or name not in ACCURACIES:
        return comparison
    right = [predictions.right(dataset, *run) for run in runs]
    if right[0] is None or right[1] is None:
        return replace(comparison, test=NO_PREDICTIONS)
    return mcnemar(right[0], right[1])
