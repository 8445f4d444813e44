"""Read and write tables as csv files, without loss of precision; pandas is imported only where frames are made."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)
_BOOLEANS = {"True": True, "False": False}


class CsvError(ValueError):
    """A file that is not a csv table, lacks an expected column, or has a cell of another type."""


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table atomically, with floats in full precision and empty cells for missing values."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def read_csv(path: str | os.PathLike[str], columns: Mapping[str, str], *, infinite: bool = False) -> pd.DataFrame:
    """Read a table written by :func:`write_csv` or :func:`write_rows`.

    Text is never interpreted: `NA` may be the name of a data set.

    Args:
        path: the csv file.
        columns: the required columns and their types (`str`, `bool`, `int64`, `Int64`, `float64`); other columns are
            read as text.
        infinite: whether numbers may be infinite, such as the residuals of a diverged fit.

    Raises:
        CsvError: the file is not a table, a column is missing, or a cell has another type.
        OSError: the file cannot be read.
    """
    import pandas as pd

    names, rows = read_cells(path)
    missing = [name for name in columns if name not in names]
    if missing:
        raise CsvError(f"{path}: expected column {missing[0]}, received {', '.join(names)}")
    frame = pd.DataFrame(rows, columns=names, dtype="str")
    for name, kind in columns.items():
        try:
            cells = [_parse_cell(cell, kind, infinite) for cell in frame[name]]
            frame[name] = pd.Series(cells, index=frame.index, dtype=kind)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise CsvError(f"{path}: column {name}: expected {kind} ({error})") from None
    return frame


def read_header(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        CsvError: the file is not a table.
        OSError: the file cannot be read.
    """
    return read_cells(path)[0]


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows in the format of :func:`write_csv`; None and NaN become empty cells."""
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


def _parse_cell(cell: str, kind: str, infinite: bool) -> Any:
    """Convert a cell to a value of its column's type; an empty one to None, but to an empty text in `str`.

    Raises:
        ValueError: the cell is not of this type.
        KeyError: the cell is not a bool.
    """
    if kind == "str":
        return cell
    if kind == "bool":
        return _BOOLEANS[cell]
    if not cell:
        return None
    if kind == "float64":
        return float(cell) if infinite and cell in ("inf", "-inf") else parse_number(cell)
    if not _WHOLE_NUMBER.fullmatch(cell):
        raise ValueError(f"received {cell[:40]!r}")
    return int(cell)


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
