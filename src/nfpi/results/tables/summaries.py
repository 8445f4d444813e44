"""Summary of a metric over seeds: values, mean, standard deviation and 95 % interval; choice of the best λ by it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nfpi.config.metrics import VALIDATION_PREFIX, metric
from nfpi.results.statistics.intervals import FEW_IMAGES, UNKNOWN, t_interval, wilson_interval
from nfpi.results.tables.rows import TableRow


class TableError(ValueError):
    """Data of which no table can be made, such as two values for one cell; the message is one line."""


@dataclass(frozen=True)
class Summary:
    """Summary of one metric of one row.

    Attributes:
        values: values by seed, ascending.
        mean: mean over seeds, NaN without values.
        std: standard deviation over seeds (n − 1), NaN for fewer than two.
        interval: bounds of the 95 % confidence interval, NaN if unknown.
        is_imported: whether the seeds are draws of one trained model.
    """

    values: Mapping[int, float]
    mean: float
    std: float
    interval: tuple[float, float]
    is_imported: bool = False

    @property
    def count(self) -> int | None:
        """Number of trained models; None without values."""
        return (1 if self.is_imported else len(self.values)) if self.values else None


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
    def seeds(self) -> int:
        """Number of seeds with metrics or a divergence."""
        return int(self.measured["seed"].nunique())

    @property
    def mismatch(self) -> float:
        """Mean mismatch of its flow over the seeds, NaN if it was not measured."""
        return _summarize(self.finished, "mismatch", self.row).mean

    @property
    def draws(self) -> int | None:
        """Number of draws of noise and samples by which a trained model was measured; None for other rows."""
        return self.seeds if self.row.is_imported else None

    @property
    def unseen(self) -> float:
        """Number of test images that a trained model is known not to be trained on, NaN if it is not known."""
        return _summarize(self.finished, "unseen", self.row).mean

    @property
    def images(self) -> int | None:
        """Number of test images of each run; None if it is unknown or varies."""
        of_samples = self.finished["run"].isin([run.folder for run in self.row.sample_runs])
        of_validation = self.finished["metric"].str.startswith(VALIDATION_PREFIX)
        counts = self.finished.loc[~(of_samples | of_validation), "n"].dropna().unique()
        return int(counts[0]) if len(counts) == 1 else None

    @property
    def validation_images(self) -> int | None:
        """Number of validation images of a run by which λ was chosen, if they are few; else None."""
        counts = self.finished.loc[self.finished["metric"] == self.chosen_by, "n"].dropna()
        is_few = self.candidates > 1 and len(counts) and counts.min() < FEW_IMAGES
        return int(counts.min()) if is_few else None

    @property
    def status(self) -> str:
        """How the runs ended."""
        if not self.seeds:
            return "missing"
        if self.diverged.empty:
            return "ok"
        if self.seeds == 1:
            return str(self.diverged["status"].iloc[0])
        return f"{len(self.diverged)} of {self.seeds} seeds diverged"


def measure_row(metrics: pd.DataFrame, row: TableRow, names: Iterable[str], best_by: str | None) -> MeasuredRow:
    """Summarise what was measured of a row.

    Args:
        metrics: result of :func:`nfpi.results.recorded.runs.collect`, in any order.
        row: the row.
        names: the metrics to summarise.
        best_by: metric by which λ is chosen on the validation split; None: NF-Acc of a flow, Top-1 of a classifier
            trained on real images.

    Raises:
        TableError: a metric of a run has two values.
    """
    measured = metrics[metrics["run"].isin([run.folder for run in row.runs])]
    diverged = measured[measured["status"] != "ok"].drop_duplicates("seed")
    finished = measured[~measured["seed"].isin(diverged["seed"])]
    chosen_by = VALIDATION_PREFIX + (best_by or ("top1" if row.is_trained_on_real_images else "nf_acc"))
    summaries = {name: _summarize(finished, name, row) for name in names}
    validation = _summarize(finished, chosen_by, row)
    return MeasuredRow(row, measured, diverged, finished, summaries, chosen_by, validation)


def mark_best(rows: Sequence[MeasuredRow], *, must_have_values: bool) -> None:
    """Mark the row that is best on the validation split, such as the one of the best λ of an experiment.

    A row of which more than half of the seeds diverged is marked only if no other row is left: the mean over its
    remaining seeds is biased. Of equal means, the first is marked. If neither direction of the metric is better, higher
    values are.

    Args:
        rows: the rows to choose from.
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
    steady = [measured for measured in scored if 2 * len(measured.diverged) <= measured.seeds]
    sign = -1 if rows and metric(rows[0].chosen_by).higher_is_better is False else 1
    best = max(steady or scored, key=lambda measured: sign * measured.validation.mean, default=None)
    if best is not None:
        best.is_best = True


def is_best_of_several(frame: pd.DataFrame) -> pd.Series:
    """Return which rows of a table are the best of several λ of their experiment that it shows."""
    has_several = frame.groupby("experiment")["validation"].transform("count") > 1
    return frame["best"] & has_several


def is_weight_chosen(frame: pd.DataFrame) -> bool:
    """Return whether some λ of a table was chosen among several on the validation split."""
    return bool((frame["candidates"] > 1).any())


def _summarize(measured: pd.DataFrame, name: str, row: TableRow) -> Summary:
    """Summarise a metric over seeds; values of classifiers take precedence over those of flows.

    Args:
        measured: collected metrics of the runs of the row.
        name: name of the metric.
        row: the row.

    Raises:
        TableError: a seed has two values.
    """
    rows = measured[measured["metric"] == name]
    of_classifier = rows["classifier"] != ""
    # Sorted, because floating-point sums depend on the order of their terms.
    rows = (rows[of_classifier] if of_classifier.any() else rows).sort_values("seed")
    if rows["seed"].duplicated().any():
        raise TableError(f"{rows['run'].iloc[0]}: expected one value of {name} for each seed, received more")
    values = rows.set_index("seed")["value"]
    tested = np.array([values.mean()]) if row.is_imported and len(values) else values.to_numpy()
    interval = _compute_interval(tested, rows["n"], name, row.split_ratio)
    return Summary(values.to_dict(), float(values.mean()), float(values.std()), interval, row.is_imported)


def _compute_interval(values: np.ndarray, images: pd.Series, name: str, split_ratio: float) -> tuple[float, float]:
    """Compute the 95 % interval of a mean over seeds, or of a single accuracy."""
    entry = metric(name)
    if values.size > 1:
        low, high = t_interval(values, split_ratio)
        lowest, highest = (0.0, 100.0) if entry.unit == "%" else (0.0 if entry.is_time else -math.inf, math.inf)
        if values.min() < lowest or values.max() > highest:  # not a share, but for example a change in percent
            return low, high
        return max(low, lowest), min(high, highest)
    if not entry.is_share or not values.size or not 0 <= values[0] <= 100 or images.isna().any():
        return UNKNOWN
    return wilson_interval(float(values[0]), int(images.iloc[0]))
