"""Titles, captions and runs of a preset, saved beside the results for `nfpi page`, which does not read the preset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from nfpi.config.settings import Config
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import Record, check_record, read_json_object

FILE = "page.json"
"""Name of the file of these descriptions, in the folder of results."""


class FigureDescription(Record):
    """Title and caption of a figure, and the names of its pictures."""

    title: str = ""
    caption: str = ""
    pictures: Annotated[list[str], Field(min_length=1)]


class Descriptions(Record):
    """Titles of tables, and descriptions of figures, by name in the order of the preset.

    Attributes:
        runs: folders of the runs of all tables, and of the flows and classifiers from which these runs start; None:
            unknown.
    """

    tables: dict[str, str] = {}
    figures: dict[str, FigureDescription] = {}
    runs: list[str] | None = None


def describe_preset(config: Config) -> Descriptions:
    """Return titles, captions and runs of a preset."""
    figures = {
        name: FigureDescription(
            title=figure.title, caption=figure.describe(config), pictures=figure.picture_names(name)
        )
        for name, figure in config.figures.items()
    }
    runs = list_tabled_runs(config)
    runs += [run.of_flow for run in runs if run.flow]
    runs += [other for run in runs if (other := config.fine_tuned_from(run))]
    return Descriptions(
        tables={name: table.title for name, table in config.tables.items()},
        figures=figures,
        runs=list(dict.fromkeys(run.folder for run in runs)),
    )


def write_descriptions(root: Path, described: Descriptions) -> None:
    """Write descriptions to the folder of results."""
    write_atomically(root / FILE, described.model_dump_json(indent=2) + "\n")


def read_descriptions(root: Path) -> Descriptions:
    """Read descriptions from the folder of results; empty before the end of the first call of the workflow.

    Raises:
        FormatError: the file has other contents.
        OSError: the file cannot be read.
    """
    path = root / FILE
    if not path.is_file():
        return Descriptions()
    return check_record(Descriptions, read_json_object(path), path, "descriptions of a preset")
