"""Logs: rows of numbers as csv, written and read without pandas, which every training would have to import."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfpi.runtime.files import write_atomically


class CsvError(ValueError):
    """A csv file without an expected column, or with a cell of another type; the message is one line."""


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows of cells by column, as :func:`nfpi.results.csv_files.write_csv` does; None and NaN are empty."""
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
    """Read the numbers of one column of a table that :func:`write_rows` wrote; empty cells are skipped.

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


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return repr(float(value)) if isinstance(value, float) else value
