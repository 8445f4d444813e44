"""Read and write tables as csv files, without loss of precision."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping

import pandas as pd

from nfpi.results.recorded.logs import CsvError, parse_number, read_cells
from nfpi.runtime.files import write_atomically


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table atomically, with floats in full precision and empty cells for missing values."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def read_csv(path: str | os.PathLike[str], columns: Mapping[str, str], *, infinite: bool = False) -> pd.DataFrame:
    """Read a table written by :func:`write_csv` or :func:`nfpi.results.recorded.logs.write_rows`.

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
    names, rows = read_cells(path)
    missing = [name for name in columns if name not in names]
    if missing:
        raise CsvError(f"{path}: expected column {missing[0]}, received {', '.join(names)}")
    frame = pd.DataFrame(rows, columns=names, dtype="str")
    for name, kind in columns.items():
        try:
            frame[name] = _convert_column(frame[name], kind, infinite)
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


def _convert_column(cells: pd.Series, kind: str, infinite: bool) -> pd.Series:
    """Convert a column of text to its type.

    Empty cells become missing values in `float64` and `Int64`, stay empty in `str`, and raise ValueError in others.
    """
    if kind == "str":
        return cells
    if kind == "bool":
        return cells.map({"True": True, "False": False}).astype("boolean").astype("bool")
    if kind == "float64":
        numbers = [_parse_number(cell, infinite) if cell else math.nan for cell in cells]
        return pd.Series(numbers, index=cells.index, dtype=kind)
    return pd.Series(
        [_parse_integer(cell) if cell else None for cell in cells], index=cells.index, dtype="Int64"
    ).astype(kind)


def _parse_number(cell: str, infinite: bool) -> float:
    return float(cell) if infinite and cell in ("inf", "-inf") else parse_number(cell)


def _parse_integer(cell: str) -> int:
    if not re.fullmatch(r"-?\d+", cell, re.ASCII):
        raise ValueError(f"received {cell[:40]!r}")
    return int(cell)
