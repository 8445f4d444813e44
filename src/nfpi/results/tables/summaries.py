"""Summary of a metric over seeds: values, mean, standard deviation and 95 % interval; choice of the best λ by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nfpi.config.metrics import Metric, metric
from nfpi.results.statistics.intervals import UNKNOWN, t_interval, wilson_interval
from nfpi.results.tables.rows import TableRow


class TableError(ValueError):
    """Data of which no table can be made, such as two values for one cell; the message is one line."""


@dataclass(frozen=True)
class Summary:
    """Summary of one metric of one row.

    Attributes:
        values: values by seed, ascending.
        folders: folders of the runs, relative to results/{preset}, by seed.
        mean: mean over seeds, NaN without values.
        std: standard deviation over seeds (n − 1), NaN for fewer than two.
        interval: bounds of the 95 % confidence interval, NaN if unknown.
        split_ratio: number of test images per training image if the seeds' splits overlap, else 0; `interval` is
            corrected by it.
    """

    values: Mapping[int, float]
    folders: Mapping[int, str]
    mean: float
    std: float
    interval: tuple[float, float]
    split_ratio: float = 0.0

    @property
    def count(self) -> int | None:
        """Number of seeds; None without values."""
        return len(self.values) or None


@dataclass(frozen=True)
class Score:
    """Score of one λ, over its seeds.

    Attributes:
        mean: mean of the metric by which λ is chosen, over the seeds that did not diverge; NaN without values.
        diverged: number of seeds that diverged.
        ended: number of seeds that diverged or have metrics.
    """

    mean: float
    diverged: int
    ended: int


def choose_best(scores: Sequence[Score], *, higher_is_better: bool | None) -> int | None:
    """Choose the best of several λ.

    A λ at which more than half of the seeds diverged is chosen only if no other λ is left: the mean over its remaining
    seeds is biased.

    Args:
        scores: scores of the λ.
        higher_is_better: direction of the metric; None counts as true.

    Returns:
        The index of the best score, the first of equal ones; None if no λ has a score.
    """
    known = [index for index, score in enumerate(scores) if not math.isnan(score.mean)]
    steady = [index for index in known if scores[index].diverged <= 0.5 * scores[index].ended]
    sign = -1 if higher_is_better is False else 1
    return max(steady or known, key=lambda index: sign * scores[index].mean, default=None)


def split_by_outcome(metrics: pd.DataFrame, row: TableRow) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return three frames: a row's metrics, a line for each of its diverged seeds, and the metrics of the others."""
    measured = metrics[metrics["run"].isin([run.folder for run in row.runs])]
    diverged = measured[measured["status"] != "ok"].drop_duplicates("seed")
    return measured, diverged, measured[~measured["seed"].isin(diverged["seed"])]


def select_values(measured: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return the rows of one metric, sorted by seed; rows of classifiers take precedence over those of flows.

    Raises:
        TableError: a seed has two values.
    """
    rows = measured[measured["metric"] == name]
    of_classifier = rows["classifier"] != ""
    # Sorted, because floating-point sums depend on the order of their terms.
    rows = (rows[of_classifier] if of_classifier.any() else rows).sort_values("seed")
    if rows["seed"].duplicated().any():
        row = rows[rows["seed"].duplicated()].iloc[0]
        raise TableError(f"{row['run']}: expected one value of {name}, received more")
    return rows


def summarize(measured: pd.DataFrame, name: str, split_ratio: float = 0.0) -> Summary:
    """Summarise a metric over seeds.

    Args:
        measured: collected metrics (:func:`nfpi.results.recorded.collect.collect`) of the runs of one row.
        name: name of the metric.
        split_ratio: that of the row (:class:`nfpi.results.tables.rows.TableRow`).

    Raises:
        TableError: a seed has two values.
    """
    rows = select_values(measured, name)
    values = rows["value"].to_numpy(dtype="float64")
    if not values.size:
        return Summary({}, {}, math.nan, math.nan, UNKNOWN)
    seeds = [int(seed) for seed in rows["seed"]]
    return Summary(
        values=dict(zip(seeds, values.tolist(), strict=True)),
        folders=dict(zip(seeds, rows["run"], strict=True)),
        mean=float(values.mean()),
        std=float(values.std(ddof=1)) if values.size > 1 else math.nan,
        interval=_compute_interval(values, rows["n"], name, split_ratio),
        split_ratio=split_ratio,
    )


def _compute_interval(values: np.ndarray, images: pd.Series, name: str, split_ratio: float) -> tuple[float, float]:
    """Compute the 95 % interval of a mean over seeds, or of a single accuracy."""
    entry = metric(name)
    if values.size > 1:
        low, high = t_interval(values, split_ratio)
        lowest, highest = _find_range(entry)
        if values.min() < lowest or values.max() > highest:  # not a share, but for example a change in percent
            return low, high
        return max(low, lowest), min(high, highest)
    if not entry.is_share or not 0 <= values[0] <= 100 or images.isna().any():
        return UNKNOWN
    return wilson_interval(float(values[0]), int(images.iloc[0]))


def _find_range(entry: Metric) -> tuple[float, float]:
    """Return the smallest and the largest possible value of a percentage or a time; unbounded for other metrics."""
    if entry.unit == "%":
        return 0.0, 100.0
    return (0.0 if entry.is_time else -math.inf), math.inf
