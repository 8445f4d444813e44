"""Tables as csv files that read back the same."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import pandas as pd

from nfpi.results.logs import CsvError
from nfpi.runtime.files import write_atomically


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table, atomically: floats so that they read back the same, unknown cells empty."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def read_csv(path: str | os.PathLike[str], columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a table that :func:`write_csv` or :func:`nfpi.results.logs.write_rows` wrote.

    Text stays text: a data set may be called `NA`.

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
