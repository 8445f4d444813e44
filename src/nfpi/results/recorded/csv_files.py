"""Read and write tables as csv files, without loss of precision; pandas is imported only where it is used."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.runtime.faults import escape_controls
from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

Row = Sequence[str | float]

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


def read_csv(
    path: str | os.PathLike[str], columns: Mapping[str, str], optional: Iterable[str] = (), *, infinite: bool = False
) -> pd.DataFrame:
    """Read a table written by :func:`write_csv` or :func:`write_rows`.

    Text is never interpreted: `NA` may be the name of a data set.

    Args:
        path: the csv file.
        columns: the required columns and their types (`str`, `bool`, `int64`, `Int64`, `float64`); other columns are
            read as text.
        optional: columns of type `float64` that may be missing.
        infinite: whether numbers may be infinite, such as the residuals of a diverged fit.

    Raises:
        CsvError: the file is not a table, a column is missing, or a cell has another type.
        OverflowError: an integer does not fit into 64 bits.
        OSError: the file cannot be read.
    """
    import pandas as pd

    columns = {**columns, **dict.fromkeys(set(optional) & set(read_header(path)), "float64")}
    cells = _read_cells(path, columns, infinite)
    return pd.DataFrame({name: pd.Series(values, dtype=columns.get(name, "str")) for name, values in cells.items()})


def read_column(path: str | os.PathLike[str], column: str) -> list[float]:
    """Read the finite numbers of one column of a table, without pandas; empty cells are skipped.

    Raises:
        CsvError: the file is not a table, the column is missing, or a cell is not a finite number.
        OSError: the file cannot be read.
    """
    cells = _read_cells(path, {column: "float64"}, infinite=False)[column]
    return [number for number in cells if number is not None]


def read_header(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        CsvError: the file is not a table.
        OSError: the file cannot be read.
    """
    return list(_read_cells(path, {}, infinite=False))


def format_lines(heading: Sequence[str], rows: Sequence[Row], delimiter: str) -> str:
    """Format rows as text, with control characters escaped; floats keep all digits.

    In a comma-separated text, texts that a spreadsheet would compute begin with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(heading)
    for row in rows:
        cells = [disarm(cell) for cell in row] if delimiter == "," else row
        writer.writerow([escape_controls(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()


def disarm(cell: Any) -> Any:
    """Begin a text with an apostrophe if a spreadsheet would compute it."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")) else cell


def _format_cell(value: Any) -> Any:
    if isinstance(value, float):  # also of NumPy, which csv would write with its type
        return "" if math.isnan(value) else float(value)
    return "" if value is None else value


def _read_cells(path: str | os.PathLike[str], columns: Mapping[str, str], infinite: bool) -> dict[str, list[Any]]:
    """Return the cells of each column; those of a column without a type as text."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            names, *rows = csv.reader(file, strict=True)
    except (ValueError, csv.Error) as error:  # csv.Error is not a ValueError
        raise CsvError(f"{path}: expected a table, received something else ({error})") from None
    missing = [name for name in columns if name not in names]
    if missing:
        raise CsvError(f"{path}: expected column {missing[0]}, received {', '.join(names)}")
    if any(len(row) != len(names) for row in rows):
        raise CsvError(f"{path}: expected {len(names)} cells in each row, received another number")
    cells = {}
    for index, name in enumerate(names):
        kind = columns.get(name, "str")
        try:
            cells[name] = [_parse_cell(row[index], kind, infinite) for row in rows]
        except (ValueError, KeyError) as error:
            raise CsvError(f"{path}: column {name}: expected {kind} ({error})") from None
    return cells


def _parse_cell(cell: str, kind: str, infinite: bool) -> Any:
    """Convert a cell to a value of its column's type; an empty one to None where a number may be missing.

    Numbers are parsed by Python, as pandas' parser may differ in the last bit.

    Raises:
        ValueError: the cell is not of this type.
        KeyError: the cell is not a bool.
    """
    if kind == "str":
        return cell
    if kind == "bool":
        return _BOOLEANS[cell]
    if not cell and kind != "int64":
        return None
    number = float(cell) if kind == "float64" else int(cell)
    if math.isnan(number) or (math.isinf(number) and not infinite):
        raise ValueError(f"received {cell}, which is not a finite number")
    return number
