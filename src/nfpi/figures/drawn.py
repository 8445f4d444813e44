"""Inputs and outputs of the functions that draw figures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from nfpi.figures.style import RESOLUTION, STYLE, FigureError
from nfpi.results.recorded.csv_files import write_csv
from nfpi.runtime.files import write_atomically, written_together

_FORMATS: tuple[tuple[str, dict[str, None]], ...] = (("png", {"Software": None}), ("pdf", {"CreationDate": None}))
"""File formats, and the metadata to leave out, as it would make files of the same figure differ."""


@dataclass(frozen=True)
class FigureInputs:
    """Inputs of a figure.

    Attributes:
        files: files by their role, as returned by :meth:`nfpi.config.FigureSettings.files`.
        settings: blocks of the preset that the figure depends on besides its own, as returned by
            :meth:`nfpi.config.FigureSettings.reads`, as JSON values.
    """

    files: Mapping[str, list[Path]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """Return the only file with this role.

        Raises:
            FigureError: there is no such file, or more than one.
        """
        files = self.files.get(name, [])
        if len(files) != 1:
            raise FigureError(f"files: expected one file called {name}, received {len(files)}")
        return files[0]

    def folder(self, name: str) -> Path:
        """Return the folder of all files with this role.

        Raises:
            FigureError: there are no such files, or they are in several folders.
        """
        folders = {file.parent for file in self.files.get(name, [])}
        if len(folders) != 1:
            raise FigureError(f"files: expected the files called {name} in one folder, received {len(folders)} folders")
        return folders.pop()


@dataclass(frozen=True)
class Drawn:
    """A drawn figure.

    Attributes:
        pictures: pictures by file name, without suffix.
        table: the numbers that they show.
    """

    pictures: Mapping[str, Figure]
    table: pd.DataFrame | None = None


def save_drawn(drawn: Drawn, folder: Path, name: str) -> None:
    """Write every picture as PNG (300 pixels per inch) and PDF, and the table as `name`.csv, either all or none.

    The bytes of the files are reproducible.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    with written_together():
        for picture, figure in drawn.pictures.items():
            for suffix, content in render_figure(figure).items():
                write_atomically(folder / f"{picture}.{suffix}", content)
        if drawn.table is not None:
            write_csv(drawn.table, folder / f"{name}.csv")


def render_figure(figure: Figure) -> dict[str, bytes]:
    """Return the contents of a figure's files by suffix, png and pdf."""
    contents = {}
    for suffix, metadata in _FORMATS:
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=suffix, dpi=RESOLUTION, metadata=metadata)
        contents[suffix] = buffer.getvalue()
    return contents
