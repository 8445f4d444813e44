"""Layout of a table of results: its columns as texts, with notes; the table in each format."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pandas as pd

from nfpi.config.metrics import Metric
from nfpi.results.metrics import find_metric
from nfpi.results.tables.columns import ROW_COLUMNS, count_shared_seeds, list_metrics, table_columns
from nfpi.results.tables.comparisons import is_equal_to_best
from nfpi.results.tables.markup import INTERVAL, table_to_markdown, tables_to_latex, tables_to_markdown, write_tables
from nfpi.results.tables.notes import compose_notes
from nfpi.results.tables.summaries import TableError, is_best, is_weight_chosen
from nfpi.results.tables.table import (
    Column,
    Table,
    count_decimals,
    format_number,
    make_number_column,
    make_text_column,
)

_ARROWS: dict[bool | None, str] = {True: "↑", False: "↓"}


def lay_out(frame: pd.DataFrame) -> Table:
    """Lay out a table of results.

    Empty columns are left out, and so are properties other than λ that all rows share; of these, the notes state the
    data set, and the number of test images if there are accuracies. If every row has a label, the columns prior,
    classifier and augmentation are left out, and the column flow if it follows from the labels.

    Args:
        frame: result of :func:`nfpi.results.tables.building.accuracy_table`.

    Raises:
        TableError: a column is missing.
    """
    shown = _find_metrics(frame)
    columns = [*_make_row_columns(frame), *_make_validation_column(frame)]
    with_direction = len({entry.higher_is_better for entry in shown}) > 1
    for entry in shown:
        columns += _make_metric_columns(frame, entry, _ARROWS.get(entry.higher_is_better, "") if with_direction else "")
    columns.append(make_text_column("Status", frame["status"].replace(["ok", "cited"], "")))
    return Table(columns, is_best(frame).tolist(), compose_notes(frame, shown))


def write_table(frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, title: str) -> None:
    """Write a table of results as `name`.csv (full precision), .md, .tex and .html, either all of them or none.

    Raises:
        TableError: a column is missing.
    """
    write_tables(frame, folder, name, [(title, lay_out(frame))])


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


def to_short_markdown(frame: pd.DataFrame) -> str:
    """Return only our values with their standard deviations as Markdown, without title and notes.

    Raises:
        TableError: a column is missing.
    """
    table = lay_out(frame)
    columns = [
        replace(column, cells=[INTERVAL.sub("", cell).replace("†", "") for cell in column.cells])
        if column.heading == "ours"
        else column
        for column in table.columns
        if column.heading in ("ours", "λ") or not (column.group or column.is_numeric)
    ]
    return table_to_markdown(replace(table, columns=columns)) + "\n"


# ---- columns ------------------------------------------------------------------------------------------------


def _find_metrics(frame: pd.DataFrame) -> list[Metric]:
    """Return the metrics of a table of results; TableError if the frame is not one."""
    names = list_metrics(frame.columns)
    missing = [name for name in table_columns(names) if name not in frame.columns]
    if missing or not names:
        raise TableError(f"expected a table of results, column {missing[0] if missing else 'of a metric'} is missing")
    return [find_metric(name) for name in names]


def _make_row_columns(frame: pd.DataFrame) -> Iterator[Column]:
    """Yield the columns that identify rows, texts before numbers."""
    shown = [(name, column) for name, column in ROW_COLUMNS.items() if column.heading is not None]
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
    entries = [find_metric(name) if name else None for name in frame["chosen_by"]]
    units = {entry.unit for entry in entries if entry is not None}
    cells = [
        format_number(value, entry.decimals) if entry is not None else ""
        for value, entry in zip(frame["validation"], entries, strict=True)
    ]
    yield make_number_column("Validation", frame["validation"], cells, unit=units.pop() if len(units) == 1 else "")


def _make_metric_columns(frame: pd.DataFrame, entry: Metric, arrow: str) -> Iterator[Column]:
    """Yield the columns of a metric: our values, the paper's, and the differences."""
    name = entry.name
    with_count = count_shared_seeds(frame) is None
    ours, differences = [], []
    for row, is_equal in zip(frame.to_dict("records"), is_equal_to_best(frame, name), strict=True):
        seeds = row[f"{name}_seeds"]
        images = None if pd.isna(row["images"]) or pd.isna(seeds) else int(row["images"]) * int(seeds)
        decimals = count_decimals(entry, images)
        low, high = (format_number(row[f"{name}_{bound}"], decimals) for bound in ("low", "high"))
        parts = [
            format_number(row[name], decimals) + ("†" if is_equal else ""),
            "" if pd.isna(row[f"{name}_std"]) else f"± {row[f'{name}_std']:.{decimals}f}",
            f"[{low}, {high}]" if low else "",
            f"(n = {seeds})" if with_count and not pd.isna(seeds) else "",
        ]
        ours.append(" ".join(filter(None, parts)))
        differences.append(format_number(row[f"{name}_difference"], decimals, signed=True))
    make_column = partial(make_number_column, group=entry.label, unit=entry.unit, arrow=arrow)
    yield make_column("ours", frame[name], ours)
    yield make_column("paper", frame[f"paper_{name}"], lambda value: f"{value:.10g}".replace("-", "−"))
    yield make_column("difference", frame[f"{name}_difference"], differences)
