"""Read and write csv logs without pandas, so that trainings need not import it."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfpi.runtime.files import write_atomically

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


class CsvError(ValueError):
    """A file that is not a csv table, lacks an expected column, or has a cell of another type."""


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows in the format of :mod:`nfpi.results.recorded.csv_files`; None and NaN become empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_format_cell(row.get(column)) for column in columns])
    write_atomically(path, text.getvalue())


def write_log(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the log of a training, one row per epoch."""
    write_rows(path, list(rows[0]) if rows else ["epoch"], rows)


def read_column(path: str | os.PathLike[str], column: str) -> list[float]:
    """Read the numbers of one column of a table written by :func:`write_rows`; empty cells are skipped.

    Raises:
        CsvError: the file is not a table, the column is missing, or a cell is not a finite number.
        OSError: the file cannot be read.
    """
    columns, rows = read_cells(path)
    if column not in columns:
        raise CsvError(f"{path}: expected column {column}, received {', '.join(columns)}")
    index = columns.index(column)
    try:
        return [parse_number(row[index]) for row in rows if row[index]]
    except ValueError as error:
        raise CsvError(f"{path}: column {column}: expected numbers ({error})") from None


def read_cells(path: str | os.PathLike[str]) -> tuple[list[str], list[list[str]]]:
    """Read the names of the columns, and the rows of cells as text; every row has one cell per column.

    Raises:
        CsvError: the file is not such a table, or its last line is incomplete.
        OSError: the file cannot be read.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (ValueError, csv.Error) as error:  # csv.Error is not a ValueError
        raise CsvError(f"{path}: expected a table, received something else ({error})") from None
    if not lines:
        raise CsvError(f"{path}: expected a table, received an empty file")
    columns, *rows = lines
    if len(set(columns)) != len(columns):
        raise CsvError(f"{path}: expected a table with distinct columns, received {', '.join(columns)}")
    ragged = next((index for index, row in enumerate(rows, 1) if len(row) != len(columns)), None)
    if ragged is not None:
        received = len(rows[ragged - 1])
        raise CsvError(f"{path}: expected {len(columns)} cells in each row, received {received} in row {ragged}")
    if not text.endswith("\n"):
        raise CsvError(f"{path}: expected a table whose last line is complete, received one that may be truncated")
    return columns, rows


def parse_number(cell: str) -> float:
    """Convert a cell to the float that was written, exactly (pandas' parser may differ in the last bit).

    Raises:
        ValueError: the cell is not a finite number.
    """
    if not _NUMBER.fullmatch(cell) or not math.isfinite(float(cell)):
        raise ValueError(f"received {cell[:40]!r}, which is not a finite number")
    return float(cell)


def _format_cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value
