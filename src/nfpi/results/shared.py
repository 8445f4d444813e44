"""What the rows of a table have in common, and which of them stand out."""

from __future__ import annotations

import pandas as pd

from nfpi.config.base import ConfigError
from nfpi.config.metrics import Metric, metric
from nfpi.results.comparisons import NO_PREDICTIONS
from nfpi.results.intervals import SIGNIFICANCE_LEVEL
from nfpi.results.tables import metrics_of_table


def shared_dataset(frame: pd.DataFrame) -> str | None:
    """Return the data set of all rows; None: there are several."""
    names = frame.loc[frame["dataset"] != "", "dataset"].unique()
    return str(names[0]) if len(names) == 1 else None


def shared_seeds(frame: pd.DataFrame) -> int | None:
    """How many seeds are behind every value; None: it differs, or there is no value."""
    columns = [f"{name}_seeds" for name in metrics_of_table(frame.columns)]
    counts = {int(count) for column in columns for count in frame[column].dropna()}
    return counts.pop() if len(counts) == 1 else None


def is_best(frame: pd.DataFrame) -> pd.Series:
    """Return the best rows, where there is another one to be better than."""
    rivals = frame.groupby("experiment")["validation"].transform("count") > 1
    return frame["best"] & rivals


def was_chosen(frame: pd.DataFrame) -> bool:
    """Return whether the validation split decided between several λ."""
    if frame["candidates"].notna().any():
        return bool((frame["candidates"] > 1).any())
    return bool(is_best(frame).any() or (frame["best"].any() and frame["lambda"].nunique() > 1))  # of an older version


def is_compared(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return the rows that are compared with the best one in a metric, and this one."""
    return ~frame[f"{name}_test"].fillna("").isin(["", NO_PREDICTIONS])


def is_equal_to_best(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return the rows that do not differ from the best one in a metric."""
    return is_compared(frame, name) & (frame[f"{name}_p"] >= SIGNIFICANCE_LEVEL)


def metric_or_name(name: str) -> Metric:
    """Return the entry of a metric; one that no loaded file registers has its name as label."""
    try:
        return metric(name)
    except ConfigError:
        return Metric(name, label=name, decimals=3)
