"""Files of tables: csv with full precision, and formatted as Markdown, LaTeX and HTML."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from nfpi.results.markup.html import to_html
from nfpi.results.markup.latex import to_latex
from nfpi.results.recorded.csv_files import write_csv
from nfpi.results.tables.layout import Column, Markup, Spread, Table, lay_out, split_weight
from nfpi.runtime.files import write_atomically, written_together

__all__ = [
    "escape_markdown",
    "split_weight",
    "table_to_markdown",
    "to_html",
    "to_latex",
    "to_markdown",
    "to_short_markdown",
    "write_table",
]


def write_table(frame: pd.DataFrame, folder: str | os.PathLike[str], name: str, title: str) -> None:
    """Write a table of results as `name`.csv (full precision), .md, .tex and .html, either all of them or none.

    Raises:
        TableError: a column is missing.
    """
    texts = {"md": to_markdown(frame, title), "tex": to_latex(frame, title), "html": to_html(frame, title)}
    with written_together():
        write_csv(frame, Path(folder) / f"{name}.csv")
        for suffix, text in texts.items():
            write_atomically(Path(folder) / f"{name}.{suffix}", text)


def to_markdown(frame: pd.DataFrame, title: str) -> str:
    """Return the table as GitHub Markdown, with title and notes.

    Raises:
        TableError: a column is missing.
    """
    heading = f"**{escape_markdown(' '.join(title.split()))}**\n\n" if title.strip() else ""
    table = lay_out(frame, MARKDOWN)
    return f"{heading}{table_to_markdown(table)}\n\n{' '.join(table.notes)}\n"


def to_short_markdown(frame: pd.DataFrame) -> str:
    """Return only our values with their standard deviations as Markdown, without title and notes.

    Raises:
        TableError: a column is missing.
    """
    table = lay_out(frame, replace(MARKDOWN, format_spread=_format_std, equal=""))
    columns = [
        column
        for column in table.columns
        if column.heading in ("ours", MARKDOWN.weight) or not (column.group or column.is_numeric)
    ]
    return table_to_markdown(Table(columns, table.best, [])) + "\n"


def table_to_markdown(table: Table) -> str:
    """Return a laid-out table as Markdown, with the best rows in bold."""
    header = [_format_heading(column) for column in table.columns]
    lines = [header, ["---:" if column.is_numeric else ":---" for column in table.columns]]
    for cells, best in zip(table.rows, table.best, strict=True):
        lines.append([f"**{cell}**" if best and cell else cell for cell in cells])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def escape_markdown(text: str) -> str:
    """Escape the text of a cell; line breaks, which would end the row, become spaces."""
    escaped = re.sub(r"([\\|*`\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.splitlines()))
    # GitHub knows the escape \<, Python-Markdown (the docs' site) does not
    return re.sub(r"&(?=#?\w+;)", "&amp;", escaped).replace("<", "&lt;")


def _format_heading(column: Column) -> str:
    """Return e.g. `NF-Acc (%)` for our values, `NF-Acc, paper` for the others."""
    return column.name if column.heading in ("ours", "") or not column.group else f"{column.group}, {column.heading}"


def _format_spread(spread: Spread) -> str:
    """Return e.g. ` ± 0.4 [97.1, 99.5]`, without unknown parts."""
    return _format_std(spread) + (f" {spread.interval}" if spread.has_interval else "")


def _format_std(spread: Spread) -> str:
    """Return e.g. ` ± 0.4`; empty if unknown."""
    return "" if pd.isna(spread.std) else f" ± {spread.std:.{spread.decimals}f}"


_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

MARKDOWN = Markup(
    escape=escape_markdown,
    format_power=lambda mantissa, exponent: mantissa + "10" + str(exponent).translate(_SUPERSCRIPTS),
    format_spread=_format_spread,
    interval="[low, high]",
    weight="λ",
    arrows={True: "↑", False: "↓"},
    escape_note=escape_markdown,
)
