"""Tables as csv files that read back the same."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd
else:
    pd = lazy_loader.load("pandas")  # a training writes its log without it


class CsvError(ValueError):
    """A csv file without an expected column, or with a cell of another type; the message is one line."""


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table, atomically: floats so that they read back the same, unknown cells empty."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of cells by column, as :func:`write_csv` writes a table, without pandas; None and NaN are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in columns])
    write_atomically(path, text.getvalue())


def write_log(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the log of a training, an epoch a row."""
    write_rows(path, list(rows[0]) if rows else ["epoch"], rows)


def read_column(path: str | os.PathLike[str], column: str) -> list[float]:
    """Read the numbers of one column of a table that :func:`write_rows` wrote, without pandas; empty cells are skipped.

    Raises:
        CsvError: the column is missing, or a cell is no number.
        OSError: the file cannot be read.
    """
    with Path(path).open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if column not in (rows.fieldnames or []):
            raise CsvError(f"{path}: expected column {column}, received {', '.join(rows.fieldnames or ['none'])}")
        try:
            return [float(row[column]) for row in rows if row[column]]
        except ValueError as error:
            raise CsvError(f"{path}: column {column}: expected numbers ({error})") from None


def read_csv(path: str | os.PathLike[str], columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a table that :func:`write_csv` or :func:`write_rows` wrote; text stays text (a data set may be called `NA`).

    Args:
        path: the csv file.
        columns: the columns that must be there, with their types (`str`, `bool`, `int64`, `Int64`, `float64`); other
            columns stay as text.

    Raises:
        CsvError: a column is missing, or a cell has another type.
        OSError: the file cannot be read.
    """
    frame = _text_cells(path)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise CsvError(f"{path}: expected column {missing[0]}, received {', '.join(map(str, frame.columns))}")
    for name, kind in columns.items():
        try:
            frame[name] = _typed(frame[name], kind)
        except (ValueError, TypeError, KeyError) as error:
            raise CsvError(f"{path}: column {name}: expected {kind} ({error})") from None
    return frame


def read_header(path: str | os.PathLike[str]) -> list[str]:
    """The names of a table's columns.

    Raises:
        CsvError: there is no table.
        OSError: the file cannot be read.
    """
    return [str(name) for name in _text_cells(path, rows=0).columns]


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value


def _text_cells(path: str | os.PathLike[str], rows: int | None = None) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype="str", keep_default_na=False, nrows=rows)
    except ValueError as error:  # empty, ragged, or no text
        raise CsvError(f"{path}: expected a table, received something else ({' '.join(str(error).split())})") from None


def _typed(cells: pd.Series, kind: str) -> pd.Series:
    """A column of text in its type; empty cells are unknown, where the type knows that."""
    if kind == "str":
        return cells
    if kind == "bool":
        return cells.map({"True": True, "False": False}).astype("boolean").astype("bool")
    if kind == "float64":  # Python's own parser gives back the float that was written, to the last bit
        return pd.Series([float(cell) if cell else math.nan for cell in cells], index=cells.index, dtype=kind)
    return pd.Series([int(cell) if cell else None for cell in cells], index=cells.index, dtype="Int64").astype(kind)
