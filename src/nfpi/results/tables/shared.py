"""Properties shared by the rows of a table, and selections of its rows."""

from __future__ import annotations

import pandas as pd

from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.tables.building import list_metrics
from nfpi.results.tables.comparisons import NO_PREDICTIONS


def find_shared_dataset(frame: pd.DataFrame) -> str | None:
    """Return the data set of all rows; None if there are several."""
    names = frame.loc[frame["dataset"] != "", "dataset"].unique()
    return str(names[0]) if len(names) == 1 else None


def count_shared_seeds(frame: pd.DataFrame) -> int | None:
    """Return the number of seeds per value; None if it varies, or there are no values."""
    columns = [f"{name}_seeds" for name in list_metrics(frame.columns)]
    counts = {int(count) for column in columns for count in frame[column].dropna()}
    return counts.pop() if len(counts) == 1 else None


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


def is_best(frame: pd.DataFrame) -> pd.Series:
    """Return which rows are the best of several λ of their experiment that the table shows."""
    has_several = frame.groupby("experiment")["validation"].transform("count") > 1
    return frame["best"] & has_several


def is_weight_chosen(frame: pd.DataFrame) -> bool:
    """Return whether some λ was chosen among several on the validation split."""
    return bool((frame["candidates"] > 1).any())


def is_compared(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows took part in the comparison with the best one in a metric."""
    return ~frame[f"{name}_test"].fillna("").isin(["", NO_PREDICTIONS])


def is_equal_to_best(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return which rows do not differ significantly from the best one in a metric."""
    return is_compared(frame, name) & (frame[f"{name}_p"] >= SIGNIFICANCE_LEVEL)
