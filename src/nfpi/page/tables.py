"""Tables on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nfpi.config.base import ConfigError
from nfpi.results.markup.html import HTML, read_title
from nfpi.results.recorded.logs import CsvError
from nfpi.results.tables.building import read_table
from nfpi.results.tables.layout import Table, lay_out
from nfpi.results.tables.summaries import TableError
from nfpi.runs import COLLECTED_FOLDER, TABLES_FOLDER
from nfpi.runtime.manifests import ManifestError, find_product


@dataclass(frozen=True)
class ShownTable:
    """A table, or the reason why it is missing.

    Attributes:
        name: stem of its files.
        title: title of the table.
        files: files in all formats, relative to the page.
        frame: the table as read; None if missing or damaged.
        table: the laid-out table; None if missing or damaged.
        fault: one line that says why it is damaged.
    """

    name: str
    title: str
    files: list[str] = field(default_factory=list)
    frame: pd.DataFrame | None = field(default=None, repr=False)
    table: Table | None = field(default=None, repr=False)
    fault: str = ""

    @property
    def is_made(self) -> bool:
        """Whether there are files."""
        return bool(self.files)


def read_tables(root: Path, titles: Mapping[str, str]) -> list[ShownTable]:
    """Read the tables of a preset in order, and others in the folder of results."""
    folders = (TABLES_FOLDER, COLLECTED_FOLDER)
    existing = sorted({path.stem for folder in folders for path in root.glob(f"{folder}/*.csv")})
    return [_read_shown_table(root, name, titles.get(name, "")) for name in dict.fromkeys([*titles, *existing])]


def _read_shown_table(root: Path, name: str, title: str) -> ShownTable:
    folder = root / TABLES_FOLDER
    title = title or read_title(folder / f"{name}.html") or name
    path = folder / f"{name}.csv"
    forms = sorted(file for file in folder.iterdir() if file.stem == name) if path.is_file() else []
    files = [f"{TABLES_FOLDER}/{file.name}" for file in forms]
    try:
        if find_product(path) is None and not files:
            return ShownTable(name, title)
        frame = read_table(path)
        return ShownTable(name, title, files, frame, lay_out(frame, HTML))
    except (ManifestError, CsvError, TableError, ConfigError, OSError) as error:
        return ShownTable(name, title, files, fault=" ".join(str(error).split()))
