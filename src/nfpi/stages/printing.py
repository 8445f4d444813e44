"""Print rows of values as a table on a terminal, or as tab-separated lines for other programs."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence

Row = Sequence[str | float]


def print_rows(heading: Sequence[str], rows: Sequence[Row]) -> None:
    """Print rows as a table with four decimals on a terminal, else as tab-separated lines with all digits."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    if not sys.stdout.isatty():
        print(format_lines(heading, rows, "\t"), end="")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    numbers = [isinstance(value, float) for value in rows[0]] if rows else [False] * len(heading)
    for name, is_number in zip(heading, numbers, strict=True):
        table.add_column(name, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else value for value in row))
    # brackets in names are not markup
    Console(markup=False, highlight=False).print(table)


def format_lines(heading: Sequence[str], rows: Sequence[Row], delimiter: str) -> str:
    """Format rows with the csv module; floats keep all digits."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerows([heading, *rows])
    return text.getvalue()
