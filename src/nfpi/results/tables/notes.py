"""Explanatory notes below a table."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from nfpi.config.metrics import Metric
from nfpi.results.metrics import find_metric
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.tables.columns import count_shared_seeds, find_shared_dataset
from nfpi.results.tables.comparisons import NO_PREDICTIONS, is_compared, is_equal_to_best
from nfpi.results.tables.summaries import is_best, is_weight_chosen

_FLOW_METRICS = ("nf_acc", "cnn_acc")
"""Metrics that the paper reports for flows, not for classifiers trained on real images."""
_TESTS = {"paired t": "paired t test over seeds", "McNemar": "McNemar's exact test on the test images"}


def compose_notes(frame: pd.DataFrame, shown: list[Metric]) -> list[str]:
    """Return the notes that explain a table of results.

    Args:
        frame: result of :func:`nfpi.results.tables.building.accuracy_table`.
        shown: metrics that the table shows.
    """
    names = [entry.name for entry in shown]
    sentences = [_describe_runs(frame, names)]
    if any(entry.is_share for entry in shown) and frame["images"].nunique() == 1:
        sentences.append(f"Accuracies on {int(frame['images'].dropna().iloc[0])} test images.")
    sentences += _describe_intervals(frame, names)
    if is_best(frame).any():
        sentences.append("Bold: the λ that is best on the validation split.")
    elif is_weight_chosen(frame):
        sentences.append("λ is the best of those tried, on the validation split.")
    if is_weight_chosen(frame) and frame["validation"].notna().any():
        sentences += _describe_choice(frame)
    sentences += _describe_comparisons(frame, shown)
    if (frame["status"] == "cited").any():
        sentences.append("Cited rows have only published values, and none if no source is known.")
    compared = [entry for entry in shown if frame[f"paper_{entry.name}"].notna().any()]
    if compared:
        in_points = ", in percentage points" if all(entry.unit == "%" for entry in compared) else ""
        of_flows = " (large flow, 500 epochs)" if {*_FLOW_METRICS} & {entry.name for entry in compared} else ""
        sentences.append(f"Difference: ours − the paper's{of_flows}{in_points}.")
    return sentences


def _describe_runs(frame: pd.DataFrame, names: list[str]) -> str:
    dataset, seeds = find_shared_dataset(frame), count_shared_seeds(frame)
    where = "" if dataset is None else f" on {dataset}"
    if seeds == 1:
        return f"One run per row{where} (n = 1 seed)."
    if frame[[f"{name}_std" for name in names]].notna().any(axis=None):
        return f"Mean ± standard deviation over n {'seeds' if seeds is None else f'= {seeds} seeds'}{where}."
    return f"Measured{where}." if frame[names].notna().any(axis=None) else f"No results{where} yet."


def _describe_intervals(frame: pd.DataFrame, names: list[str]) -> Iterator[str]:
    over_seeds = single = False
    for name in names:
        known, spread = frame[f"{name}_low"].notna(), frame[f"{name}_std"].notna()
        over_seeds, single = over_seeds or (known & spread).any(), single or (known & ~spread).any()
    of_run = "95 % interval of one run's accuracy over the choice of test images (Wilson)"
    of_mean = "95 % interval of the mean over seeds (Student's t)"
    if single and over_seeds:
        yield f"[low, high]: where n = 1, {of_run}; otherwise, {of_mean}."
    elif single or over_seeds:
        yield f"[low, high]: {of_run if single else of_mean}."
    if not over_seeds:
        if single:
            yield "It does not include the spread over seeds."
        return
    spread = frame[[f"{name}_std" for name in names]].notna().any(axis=1)
    corrected = frame["split_ratio"] > 0
    if (spread & corrected).any():
        yield describe_correction(frame, spread & corrected, spread)
    if (spread & ~corrected).any():
        yield (
            "The spread over seeds does not include the effect of the choice of test images, unless each seed has its "
            "own split."
        )


def _describe_choice(frame: pd.DataFrame) -> Iterator[str]:
    """Yield a note that names the metric of the validation column."""
    names = dict.fromkeys(name for name in frame.loc[frame["validation"].notna(), "chosen_by"] if name)
    labels = [find_metric(name).label.removeprefix("Validation ") for name in names]
    if labels:
        yield f"Validation: {' or '.join(labels)} on that split, over the seeds that did not diverge."


def _describe_comparisons(frame: pd.DataFrame, shown: list[Metric]) -> Iterator[str]:
    """Yield notes on how rows were compared with the best one of each metric, and on metrics not compared."""
    compared = [entry for entry in shown if is_compared(frame, entry.name).any()]
    if any((frame[f"{entry.name}_test"] == NO_PREDICTIONS).any() for entry in shown):
        yield "Where predictions of runs are missing, rows are not compared with the best one."
    if not compared:
        return
    tests = dict.fromkeys(
        test for entry in compared for test in frame.loc[is_compared(frame, entry.name), f"{entry.name}_test"]
    )
    where = "" if find_shared_dataset(frame) is not None else " on its data set"
    how = f"{' or '.join(_TESTS.get(test, test) for test in tests)}, Holm over all pairs of rows and all metrics"
    level = f"from the best of its column{where} at the {100 * SIGNIFICANCE_LEVEL:g} % level ({how})."
    if any(is_equal_to_best(frame, entry.name).any() for entry in compared):
        yield f"†: does not differ {level}"
    else:
        yield f"Each other value differs {level}"
    others = [entry for entry in shown if _has_uncompared_rows(frame, entry)]
    for where, entries in (
        ("", [entry for entry in others if entry not in compared]),
        (" in some rows", [entry for entry in others if entry in compared]),
    ):
        if entries:
            yield f"Not tested{where}: {', '.join(entry.label for entry in entries)}."


def _has_uncompared_rows(frame: pd.DataFrame, entry: Metric) -> bool:
    """Return whether a metric by which rows can be ranked has values that were not compared."""
    if entry.higher_is_better is None:
        return False
    known = frame[entry.name].notna()
    rows_on_dataset = known.groupby(frame["dataset"]).transform("sum")
    return bool((known & ~is_compared(frame, entry.name) & (rows_on_dataset > 1)).any())


def describe_correction(frame: pd.DataFrame, corrected: pd.Series, tested: pd.Series) -> str:
    """Return a note on the correction of intervals and tests for overlapping splits.

    Args:
        frame: rows with a column `dataset`.
        corrected: the rows to which the correction was applied.
        tested: all rows with an interval or a test over seeds; if they include a data set without corrected rows, the
            note names the data sets that have some.
    """
    names = frame.loc[corrected, "dataset"].unique()
    where = f" on {' and '.join(names)}" if set(frame.loc[tested, "dataset"]) > set(names) else ""
    return (
        f"Intervals and t tests over seeds{where} are corrected for the overlap of the seeds' splits "
        "(Nadeau and Bengio, 2003)."
    )
