"""Summary of a metric over seeds: values, mean, standard deviation and 95 % interval; choice of the best λ by it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd

from nfpi.config.metrics import VALIDATION_PREFIX, Metric, metric
from nfpi.results.statistics.intervals import UNKNOWN, t_interval, wilson_interval
from nfpi.results.tables.rows import TableRow
from nfpi.runs import Run


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


@dataclass
class MeasuredRow:
    """What was measured of a row of a table.

    Attributes:
        row: the row.
        measured: all collected metrics of its runs.
        diverged: a line for each diverged seed.
        finished: the metrics of the other seeds.
        summaries: summaries of the metrics that the table shows, by name.
        chosen_by: metric by which λ is chosen.
        validation: its summary.
        candidates: number of λ of the experiment to choose from.
        is_best: whether λ is the best of them.
    """

    row: TableRow
    measured: pd.DataFrame
    diverged: pd.DataFrame
    finished: pd.DataFrame
    summaries: dict[str, Summary]
    chosen_by: str
    validation: Summary
    candidates: int = 0
    is_best: bool = False

    @property
    def score(self) -> Score:
        """The score by which λ is chosen."""
        return Score(self.validation.mean, len(self.diverged), self.seeds)

    @property
    def seeds(self) -> int:
        """Number of seeds with metrics or a divergence."""
        return int(self.measured["seed"].nunique())

    @property
    def has_diverged(self) -> bool:
        """Whether there are runs, and all diverged."""
        return self.finished.empty and not self.diverged.empty

    @property
    def images(self) -> int | None:
        """Number of test images of each run; None if it is unknown or varies."""
        counts = self.finished["n"].dropna().unique()
        return int(counts[0]) if len(counts) == 1 else None

    @property
    def status(self) -> str:
        """How the runs ended."""
        if not self.seeds:
            return "missing"
        if self.diverged.empty:
            return "ok"
        return (
            self.diverged["status"].iloc[0]
            if self.seeds == 1
            else f"{len(self.diverged)} of {self.seeds} seeds diverged"
        )


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


def find_selecting_metric(best_by: str | None, *, is_trained_on_real_images: bool = False) -> str:
    """Return the metric that selects λ on the validation split: that of `best_by` of a table, or its default."""
    return VALIDATION_PREFIX + (best_by or ("top1" if is_trained_on_real_images else "nf_acc"))


def measure_row(metrics: pd.DataFrame, row: TableRow, names: Iterable[str], best_by: str | None) -> MeasuredRow:
    """Summarise what was measured of a row.

    Args:
        metrics: result of :func:`nfpi.results.recorded.collect.collect`, in any order.
        row: the row.
        names: the metrics to summarise.
        best_by: metric by which λ is chosen; None: the default.

    Raises:
        TableError: a metric of a run has two values.
    """
    measured, diverged, finished = split_by_outcome(metrics, row)
    chosen_by = find_selecting_metric(best_by, is_trained_on_real_images=row.is_trained_on_real_images)
    summaries = {name: summarize(finished, name, row.split_ratio) for name in names}
    return MeasuredRow(row, measured, diverged, finished, summaries, chosen_by, summarize(finished, chosen_by))


def mark_best(rows: Sequence[MeasuredRow], *, must_have_values: bool) -> None:
    """Mark the row of an experiment whose λ is best on the validation split.

    Args:
        rows: the rows of the experiment.
        must_have_values: whether, if there are several rows, each that has metrics must have the one that selects λ.

    Raises:
        TableError: with `must_have_values`, one has not.
    """
    scored = [measured for measured in rows if measured.validation.count]
    for measured in rows:
        measured.candidates = len(scored)
        has_values = any(summary.count for summary in measured.summaries.values())
        if must_have_values and len(rows) > 1 and has_values and not measured.validation.count:
            folder = measured.row.runs[0].folder
            raise TableError(f"{folder}: best_by: expected {measured.chosen_by} in metrics.json, received none")
    if scored:
        higher_is_better = metric(scored[0].chosen_by).higher_is_better
        best = choose_best([measured.score for measured in scored], higher_is_better=higher_is_better)
        if best is not None:
            scored[best].is_best = True


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


def choose_best_run(values: Mapping[Run, Sequence[float]], diverged: Mapping[Run, int], name: str) -> Run | None:
    """Choose the best run of several by the mean of a validation metric, as :func:`choose_best` does.

    Args:
        values: values of the seeds that ended well, by the run with seed 0.
        diverged: number of diverged seeds, by the run with seed 0.
        name: name of the metric.
    """
    runs = list(values)
    scores = [
        Score(fmean(values[run] or [math.nan]), diverged.get(run, 0), diverged.get(run, 0) + len(values[run]))
        for run in runs
    ]
    best = choose_best(scores, higher_is_better=metric(name).higher_is_better)
    return None if best is None else runs[best]


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


def is_best(frame: pd.DataFrame) -> pd.Series:
    """Return which rows of a table are the best of several λ of their experiment that it shows."""
    has_several = frame.groupby("experiment")["validation"].transform("count") > 1
    return frame["best"] & has_several


def is_weight_chosen(frame: pd.DataFrame) -> bool:
    """Return whether some λ of a table was chosen among several on the validation split."""
    return bool((frame["candidates"] > 1).any())


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
