"""Layout of a table of results: its columns as texts, with explanatory notes below; the table in each format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd

from nfpi.config.metrics import MISMATCH_LIMIT, Metric, find_metric, find_network
from nfpi.results.numbers import count_decimals, format_number
from nfpi.results.recorded.runs import MISMATCH_ADVICE
from nfpi.results.statistics.intervals import SIGNIFICANCE_LEVEL, describe_few_images
from nfpi.results.tables.building import NO_PREDICTIONS, is_compared, is_equal_to_best, is_worse_than_best
from nfpi.results.tables.columns import (
    DRAWS,
    MISMATCH,
    ROW_COLUMNS,
    UNSEEN,
    VALIDATION_IMAGES,
    count_shared_seeds,
    find_shared_dataset,
    list_metrics,
    table_columns,
)
from nfpi.results.tables.markup import (
    Column,
    TextTable,
    make_number_column,
    make_text_column,
    tables_to_latex,
    tables_to_markdown,
    write_tables,
)
from nfpi.results.tables.summaries import TableError, is_best_of_several, is_weight_chosen

_ARROWS: dict[bool | None, str] = {True: "↑", False: "↓"}
_FLOW_METRICS = {"nf_acc", "cnn_acc"}
"""Metrics that the paper reports for flows, not for classifiers trained on real images."""
_TESTS = {"paired t": "paired t test over seeds", "McNemar": "McNemar's exact test on the test images"}


def lay_out(frame: pd.DataFrame, *, in_grey: bool = False) -> TextTable:
    """Lay out a table of results.

    Empty columns are left out, and so are properties other than λ that all rows share; of these, the notes state the
    data set, and the number of test images if there are accuracies. If every row has a label, the columns prior,
    classifier and augmentation are left out, and the column flow if it follows from the labels.

    Args:
        frame: result of :func:`nfpi.results.tables.building.accuracy_table`.
        in_grey: for HTML: whether values that are significantly worse than the best of their column are grey, instead
            of a † at those that are not.

    Raises:
        TableError: a column is missing.
    """
    shown = _find_metrics(frame)
    columns = [*_make_row_columns(frame), *_make_validation_column(frame)]
    with_direction = len({entry.higher_is_better for entry in shown if frame[entry.name].notna().any()}) > 1
    for entry in shown:
        arrow = _ARROWS.get(entry.higher_is_better, "") if with_direction else ""
        columns += _make_metric_columns(frame, entry, arrow, in_grey)
    columns.append(make_text_column("Status", frame["status"].replace(["ok", "cited"], "")))
    return TextTable(columns, is_best_of_several(frame).tolist(), list(_compose_notes(frame, shown, in_grey)))


def write_table(frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, title: str) -> None:
    """Write a table of results as `name`.csv (full precision), .md, .tex and .html, either all of them or none.

    Raises:
        TableError: a column is missing.
    """
    write_tables(frame, folder, name, [(title, lay_out(frame))], [(title, lay_out(frame, in_grey=True))])


def to_markdown(frame: pd.DataFrame, title: str) -> str:
    """Return a table of results as GitHub Markdown, with title and notes.

    Raises:
        TableError: a column is missing.
    """
    return tables_to_markdown([(title, lay_out(frame))])


def to_latex(frame: pd.DataFrame, title: str) -> str:
    r"""Return a table of results as LaTeX for ``\input``, in ASCII; it needs the packages booktabs and graphicx.

    Raises:
        TableError: a column is missing.
    """
    return tables_to_latex([(title, lay_out(frame))])


# ---- columns ------------------------------------------------------------------------------------------------


def _find_metrics(frame: pd.DataFrame) -> list[Metric]:
    """Return the metrics of a table of results; TableError if the frame is not one."""
    names = list_metrics(frame.columns)
    missing = [name for name in table_columns(names) if name not in frame.columns]
    if missing or not names:
        raise TableError(f"expected a table of results, column {missing[0] if missing else 'of a metric'} is missing")
    return [find_metric(name) for name in names]


def _make_row_columns(frame: pd.DataFrame, *, identifying: bool = False) -> Iterator[Column]:
    """Yield the columns before those of metrics, texts before numbers; with `identifying`, those that name a row."""
    shown = [(name, column) for name, column in ROW_COLUMNS.items() if column.heading is not None]
    shown = [(name, column) for name, column in shown if column.identifies or not identifying]
    for name, column in sorted(shown, key=lambda item: item[1].form is not None):
        if column.is_shown(frame) and column.heading is not None:
            values = frame[name].astype(object).where(frame[name].notna(), None)
            if column.form is None:
                yield make_text_column(column.heading, values)
            else:
                yield make_number_column(column.heading, values, column.form)


def _make_validation_column(frame: pd.DataFrame) -> Iterator[Column]:
    """Yield the column of the validation values by which λ was chosen, if it was."""
    if not is_weight_chosen(frame):
        return
    entries = [find_metric(name) for name in frame["chosen_by"]]  # of cited rows, without values, the name is empty
    units = {entry.unit for entry in entries if entry.name}
    cells = [format_number(value, entry.decimals) for value, entry in zip(frame["validation"], entries, strict=True)]
    yield make_number_column("Validation", frame["validation"], cells, unit=units.pop() if len(units) == 1 else "")


def _make_metric_columns(frame: pd.DataFrame, entry: Metric, arrow: str, in_grey: bool) -> Iterator[Column]:
    """Yield the columns of a metric: our values, the paper's, and the differences."""
    name = entry.name
    with_count = count_shared_seeds(frame) is None
    is_constant = name == "parameters" and (frame[f"{name}_std"].fillna(0) == 0).all()
    ours, differences = [], []
    for row, is_equal in zip(frame.to_dict("records"), is_equal_to_best(frame, name), strict=True):
        seeds = row[f"{name}_seeds"]
        images = None if pd.isna(row["images"]) or pd.isna(seeds) else int(row["images"]) * int(seeds)
        decimals = count_decimals(entry, images)
        low, high = (format_number(row[f"{name}_{bound}"], decimals) for bound in ("low", "high"))
        parts = [
            format_number(row[name], decimals) + ("†" if is_equal and not in_grey else ""),
            "" if is_constant or pd.isna(row[f"{name}_std"]) else f"± {row[f'{name}_std']:.{decimals}f}",
            f"[{low}, {high}]" if low and not is_constant else "",
            f"(n = {seeds})" if with_count and not pd.isna(seeds) else "",
        ]
        ours.append(" ".join(filter(None, parts)))
        differences.append(format_number(row[f"{name}_difference"], decimals, signed=True))
    make_column = partial(make_number_column, group=entry.label, unit=entry.unit, arrow=arrow)
    yield make_column("ours", frame[name], ours, is_worse=is_worse_than_best(frame, name).tolist() if in_grey else ())
    yield make_column("paper", frame[f"paper_{name}"], lambda value: f"{value:.10g}".replace("-", "−"))
    yield make_column("difference", frame[f"{name}_difference"], differences)


# ---- notes --------------------------------------------------------------------------------------------------


def _compose_notes(frame: pd.DataFrame, shown: list[Metric], in_grey: bool) -> Iterator[str]:
    """Yield the notes that explain a table of results."""
    names = [entry.name for entry in shown]
    yield _describe_runs(frame, names)
    if any(entry.is_share for entry in shown) and frame["images"].nunique() == 1:
        yield f"Accuracies on {int(frame['images'].dropna().iloc[0])} test images."
    yield from _describe_intervals(frame, names)
    yield from _describe_choice(frame)
    yield from _describe_comparisons(frame, shown, in_grey)
    measured = frame[frame["status"] == "ok"]
    distances = [entry.label for entry in shown if find_network(entry.name) and measured[entry.name].isna().any()]
    if distances:
        yield (
            f"{', '.join(distances)}: empty without a classifier, and where generated or real images are fewer than "
            "twice the number of features."
        )
    if DRAWS in frame:
        yield from _describe_draws(frame)
    if MISMATCH in frame and (frame[MISMATCH] > MISMATCH_LIMIT).any():
        yield f"{_list_mismatches(frame)} {MISMATCH_ADVICE}"
    if (frame["status"] == "cited").any():
        yield "Cited rows have only published values, and none if no source is known."
    compared = [entry for entry in shown if frame[f"paper_{entry.name}"].notna().any()]
    if compared:
        in_points = ", in percentage points" if all(entry.unit == "%" for entry in compared) else ""
        of_flows = " (large flow, 500 epochs)" if _FLOW_METRICS & {entry.name for entry in compared} else ""
        yield f"Difference: ours − the paper's{of_flows}{in_points}."


def _list_mismatches(frame: pd.DataFrame) -> str:
    """Return a sentence that names the rows whose flows do not follow their priors."""
    rows = [
        f"{name} ({mismatch:.2f})"
        for name, mismatch in zip(_name_rows(frame), frame[MISMATCH], strict=True)
        if mismatch > MISMATCH_LIMIT
    ]
    return f"Flows that do not follow their priors (mismatch in bits/dim): {'; '.join(rows)}."


def _describe_draws(frame: pd.DataFrame) -> Iterator[str]:
    """Yield notes on the rows of imported models."""
    names, draws = _name_rows(frame), frame[DRAWS].fillna(0)
    several = [f"{name} ({count} draws)" for name, count in zip(names, draws, strict=True) if count > 1]
    if several:
        yield (
            "Imported models are one training each; their ± is over draws of noise and samples, and no test compares "
            f"them with other rows: {'; '.join(several)}."
        )
    unknown = (draws > 0) & (frame[UNSEEN].isna() if UNSEEN in frame else True)
    if unknown.any():
        listed = "; ".join(name for name, is_unknown in zip(names, unknown, strict=True) if is_unknown)
        yield f"Whether these imported models were trained on test images is not known: {listed}."


def _name_rows(frame: pd.DataFrame) -> list[str]:
    """Return the name of each row: its cells, without repetitions."""
    shown = [
        [f"{column.heading} = {cell}" if cell and column.is_numeric else cell for cell in column.cells]
        for column in _make_row_columns(frame, identifying=True)
    ]
    return [", ".join(dict.fromkeys(filter(None, cells))) for cells in zip(*shown, strict=True)]


def _describe_runs(frame: pd.DataFrame, names: list[str]) -> str:
    dataset, seeds = find_shared_dataset(frame), count_shared_seeds(frame)
    where = "" if dataset is None else f" on {dataset}"
    if seeds == 1:
        return f"One run per row{where} (n = 1 seed)."
    if _has_spread(frame, names).any():
        return f"Mean ± standard deviation over n {'seeds' if seeds is None else f'= {seeds} seeds'}{where}."
    return f"Measured{where}." if frame[names].notna().any(axis=None) else f"No results{where} yet."


def _describe_intervals(frame: pd.DataFrame, names: list[str]) -> Iterator[str]:
    known, spread = frame[[f"{name}_low" for name in names]].notna().to_numpy(), _has_spread(frame, names)
    over_seeds, single = (known & spread).any(), (known & ~spread).any()
    of_run = "95 % interval of one run's accuracy over the choice of test images (Wilson)"
    of_mean = "95 % interval of the mean over seeds (Student's t)"
    if single and over_seeds:
        yield f"[low, high]: where n = 1, {of_run}; otherwise, {of_mean}."
    elif single:
        yield f"[low, high]: {of_run}. It does not include the spread over seeds."
    elif over_seeds:
        yield f"[low, high]: {of_mean}."
    else:
        return
    has_spread, corrected = spread.any(axis=1), frame["split_ratio"] > 0
    if over_seeds and (has_spread & corrected).any():
        yield describe_correction(frame, has_spread & corrected, has_spread)
    if over_seeds and (has_spread & ~corrected).any():
        yield (
            "The spread over seeds does not include the effect of the choice of test images, unless each seed has its "
            "own split."
        )


def _has_spread(frame: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return which values are means over several trainings, one column for each metric."""
    several: np.ndarray = (frame[[f"{name}_seeds" for name in names]] > 1).fillna(False).to_numpy(dtype=bool)
    return several


def _describe_choice(frame: pd.DataFrame) -> Iterator[str]:
    """Yield notes on bold rows and on the choice of λ, with the metric of the validation column."""
    if is_best_of_several(frame).any():
        yield "Bold: the λ that is best on the validation split."
    elif is_weight_chosen(frame):
        yield "λ is the best of those tried, on the validation split."
    names = dict.fromkeys(name for name in frame.loc[frame["validation"].notna(), "chosen_by"] if name)
    labels = [find_metric(name).label.removeprefix("Validation ") for name in names]
    if labels and is_weight_chosen(frame):
        yield f"Validation: {' or '.join(labels)} on that split, over the seeds that did not diverge."
    if VALIDATION_IMAGES in frame:
        yield f"{describe_few_images(frame[VALIDATION_IMAGES].min())}."


def _describe_comparisons(frame: pd.DataFrame, shown: list[Metric], in_grey: bool) -> Iterator[str]:
    """Yield notes on how rows were compared with the best one of each metric, and on metrics not compared."""
    compared = [entry for entry in shown if is_compared(frame, entry.name).any()]
    if any((frame[f"{entry.name}_test"] == NO_PREDICTIONS).any() for entry in shown):
        yield "Where predictions of runs are missing, rows are not compared with the best one."
    if not compared:
        return
    tests = pd.concat([frame.loc[is_compared(frame, entry.name), f"{entry.name}_test"] for entry in compared]).unique()
    where = "" if find_shared_dataset(frame) is not None else " on its data set"
    level = f"at the {100 * SIGNIFICANCE_LEVEL:g} % level"
    how = f"{' or '.join(_TESTS.get(test, test) for test in tests)}, Holm over all pairs of rows and all metrics"
    has_equal = any(is_equal_to_best(frame, entry.name).any() for entry in compared)
    if in_grey:
        has_worse = any(is_worse_than_best(frame, entry.name).any() for entry in compared)
        differs = "Grey: worse than" if has_worse else "No value is worse than"
        yield f"{differs} the best of its column{where} {level}; tests and p-values are in the csv."
    else:
        differs = "†: does not differ" if has_equal else "Each other value differs"
        yield f"{differs} from the best of its column{where} {level} ({how})."
    others = [entry for entry in shown if _has_uncompared_rows(frame, entry)]
    for where, is_in_part in (("", False), (" in some rows", True)):
        labels = [entry.label for entry in others if (entry in compared) == is_in_part]
        if labels:
            yield f"Not tested{where}: {', '.join(labels)}."


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
