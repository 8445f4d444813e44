"""Comparison of the rows of a table with the best one, for each metric.

Rows on one data set are compared over their common seeds, if there are two or more, by a paired t test over seeds; in a
table of one seed, accuracies are compared by McNemar's test on the predictions for the same test images. The t test is
corrected for the overlap of splits that the seeds draw from the same images. The values that are tested also choose the
best row, and so which pairs are compared. Holm's adjustment is therefore over all pairs of rows and all metrics of the
table. If it were over the comparisons with the best row only, rows without a true difference would seem to differ in
more than 5 % of the tables (9 % for five rows). An imported model with several seeds is not compared, since these are
draws of noise.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from nfpi.config.metrics import ACCURACIES, metric
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.statistics.significance import Comparison, holm, mcnemar, paired_t
from nfpi.results.tables.summaries import MeasuredRow, TableError
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged

NO_PREDICTIONS = "no predictions"
"""Recorded in place of the name of the test if predictions are missing."""

FindPredictions = Callable[[Run], Predictions | None]
"""Returns the predictions of a run; None: there are none."""
_ReadChecked = Callable[[Run, float], Predictions | None]


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

    Args:
        rows: the measured rows.
        names: names of the metrics to compare.
        read: returns the predictions of a run; None: there are none.

    Returns:
        For each row and compared metric, the columns `{metric}_test`, the name of the test, and `{metric}_p`, the
        p-value adjusted by Holm's method. The best row has no `{metric}_p`. If a test lacks predictions,
        `{metric}_test` is :data:`NO_PREDICTIONS`.

    Raises:
        TableError: predictions are of different images, or contradict the metrics.
        MetricsError: a file does not contain predictions.
    """
    read_once = functools.cache(functools.partial(_read_checked, read))
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


def _compare_pairs(rows: Sequence[MeasuredRow], name: str, read: _ReadChecked) -> Iterator[_Pair]:
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


def _compare_rows(first: MeasuredRow, second: MeasuredRow, name: str, read: _ReadChecked) -> Comparison:
    """Compare two rows by a paired t test over seeds, or accuracies in a table of one seed by McNemar's test."""
    values = [measured.summaries[name].values for measured in (first, second)]
    comparison = paired_t(*values, split_ratio=max(first.row.split_ratio, second.row.split_ratio))
    runs = [run for measured in (first, second) if name in ACCURACIES for run in measured.row.runs_of(name)]
    if len(runs) != 2 or comparison.seeds != 1:  # the table has several seeds
        return comparison
    a, b = (read(run, *of_seed.values()) for run, of_seed in zip(runs, values, strict=True))
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


def _read_checked(read: FindPredictions, run: Run, accuracy: float) -> Predictions | None:
    """Return the predictions of a run whose accuracy is `accuracy`, in percent; None: there are none."""
    try:
        predictions = read(run)
    except Diverged as fault:  # passed on, it would mark the table itself as diverged
        expected = f"{run.folder}: expected {accuracy:.2f} % correct"
        raise TableError(f"{expected}, received a run that diverged: {fault}") from None
    if predictions is None:
        return None
    right = predictions.is_correct
    if not right.size or abs(100 * float(right.mean()) - accuracy) > 50 / right.size:  # half an image
        received = f"predictions with {100 * float(right.mean()):.2f} %" if right.size else "predictions of no image"
        raise TableError(f"{run.folder}: expected {accuracy:.2f} % correct as in its metrics, received {received}")
    return predictions


def is_compared(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table took part in the comparison with the best one in a metric."""
    return ~frame[f"{name}_test"].isin(["", NO_PREDICTIONS])


def is_equal_to_best(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows of a table do not differ significantly from the best one in a metric."""
    return is_compared(frame, name) & (frame[f"{name}_p"] >= SIGNIFICANCE_LEVEL)
