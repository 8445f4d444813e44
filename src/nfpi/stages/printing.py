"""Print rows of values as a table on a terminal, or as tab-separated lines for other programs."""

from __future__ import annotations

import csv
import io
import itertools
import sys
from collections.abc import Iterable, Sequence

from nfpi.results.recorded.csv_files import disarm
from nfpi.runtime.faults import escape_controls

Row = Sequence[str | float]


def print_rows(
    heading: Sequence[str], rows: Sequence[Row], title: str = "", styles: Iterable[str | None] = itertools.repeat(None)
) -> None:
    """Print rows as a table with four decimals on a terminal, else as tab-separated lines with all digits.

    Args:
        heading: names of the columns.
        rows: at least one row of values.
        title: title of the table.
        styles: style of each row on a terminal, such as `bold red`.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    if not sys.stdout.isatty():
        print((f"# {title}\n" if title else "") + format_lines(heading, rows, "\t"), end="")
        return
    table = Table(title=title or None, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name, value in zip(heading, rows[0], strict=True):
        table.add_column(name, justify="right" if isinstance(value, float) else "left", overflow="fold")
    table.columns[0].no_wrap = True  # paths of runs are to be copied
    for row, style in zip(rows, styles, strict=False):
        cells = (f"{value:.4f}" if isinstance(value, float) else escape_controls(value) for value in row)
        table.add_row(*cells, style=style)
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


def format_lines(heading: Sequence[str], rows: Sequence[Row], delimiter: str) -> str:
    """Format rows with the csv module; floats keep all digits."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([heading, *([_disarm(cell, delimiter) for cell in row] for row in rows)])
    return text.getvalue()


def _disarm(cell: str | float, delimiter: str) -> str | float:
    """Escape control characters of a text, and begin one with an apostrophe that a spreadsheet would compute."""
    if not isinstance(cell, str):
        return cell
    return escape_controls(disarm(cell) if delimiter == "," else cell)
