"""Read and write tables as csv files, without loss of precision; pandas is imported only where it is used."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

_BOOLEANS = {"True": True, "False": False}


class CsvError(ValueError):
    """A file that is not a csv table, lacks an expected column, or has a cell of another type."""


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table atomically, with floats in full precision and empty cells for missing values.

    Texts that a spreadsheet would compute begin with an apostrophe.
    """
    texts = frame.select_dtypes(["object", "string"]).columns
    frame = frame.assign(**{name: frame[name].map(disarm) for name in texts})
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows in the format of :func:`write_csv`, without pandas; None and NaN become empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_format_cell(row.get(column)) for column in columns])
    write_atomically(path, text.getvalue())


def write_log(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the log of a training, one row per epoch."""
    write_rows(path, list(rows[0]) if rows else ["epoch"], rows)


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

    names, *rows = _read_lines(path)
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


def read_column(path: str | os.PathLike[str], column: str) -> list[float]:
    """Read the finite numbers of one column of a table, without pandas; empty cells are skipped.

    Raises:
        CsvError: the file is not a table, the column is missing, or a cell is not a finite number.
        OSError: the file cannot be read.
    """
    names, *rows = _read_lines(path)
    if column not in names:
        raise CsvError(f"{path}: expected column {column}, received {', '.join(names)}")
    try:
        numbers = [_parse_cell(row[names.index(column)], "float64", infinite=False) for row in rows]
    except ValueError as error:
        raise CsvError(f"{path}: column {column}: expected numbers ({error})") from None
    return [number for number in numbers if number is not None]


def read_header(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        CsvError: the file is not a table.
        OSError: the file cannot be read.
    """
    return _read_lines(path)[0]


def disarm(cell: Any) -> Any:
    """Begin a text with an apostrophe if a spreadsheet would compute it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def _format_cell(value: Any) -> Any:
    if isinstance(value, float):  # also of NumPy, which csv would write with its type
        return "" if math.isnan(value) else float(value)
    return "" if value is None else value


def _read_lines(path: str | os.PathLike[str]) -> list[list[str]]:
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
    columns = lines[0]
    if len(set(columns)) != len(columns):
        raise CsvError(f"{path}: expected a table with distinct columns, received {', '.join(columns)}")
    for index, row in enumerate(lines):
        if len(row) != len(columns):
            raise CsvError(f"{path}: expected {len(columns)} cells in each row, received {len(row)} in row {index}")
    if not text.endswith("\n"):
        raise CsvError(f"{path}: expected a table whose last line is complete, received one that may be truncated")
    return lines


def _parse_cell(cell: str, kind: str, infinite: bool) -> Any:
    """Convert a cell to a value of its column's type; an empty one to None, but to an empty text in `str`.

    Numbers are parsed by Python, as pandas' parser may differ in the last bit.

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
    number = float(cell) if kind == "float64" else int(cell)
    # Python also reads other digits, and numbers with spaces or underscores
    is_plain = cell.isascii() and cell == cell.strip() and "_" not in cell
    is_finite = math.isfinite(number) or (infinite and math.isinf(number) and "inf" in cell)
    if not is_plain or not is_finite:
        raise ValueError(f"received {cell[:40]!r}, which is not a finite number")
    return number
