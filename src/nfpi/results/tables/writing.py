"""Files of tables: csv with full precision, and formatted as Markdown, LaTeX and HTML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.tables.layout import lay_out
from nfpi.results.tables.markup import INTERVAL, table_to_markdown, tables_to_html, tables_to_latex, tables_to_markdown
from nfpi.results.tables.table import Table
from nfpi.runtime.files import write_atomically, written_together


def write_table(frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, title: str) -> None:
    """Write a table of results as `name`.csv (full precision), .md, .tex and .html, either all of them or none.

    Raises:
        TableError: a column is missing.
    """
    write_tables(frame, folder, name, [(title, lay_out(frame))])


def write_tables(
    frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, tables: Sequence[tuple[str, Table]]
) -> None:
    """Write a frame as csv, and laid-out tables of it in the other formats, either all files or none."""
    texts = {"md": tables_to_markdown(tables), "tex": tables_to_latex(tables), "html": tables_to_html(tables)}
    with written_together():
        write_csv(frame, Path(folder) / f"{name}.csv")
        for suffix, text in texts.items():
            write_atomically(Path(folder) / f"{name}.{suffix}", text)


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


def to_html(frame: pd.DataFrame, title: str) -> str:
    """Return a table of results as a self-contained HTML document with sortable columns.

    Raises:
        TableError: a column is missing.
    """
    return tables_to_html([(title, lay_out(frame))])


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
