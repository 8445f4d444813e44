"""Tables, figures and claims on a page, each with its files, or the reason why it is missing.

Their titles and captions are saved beside the results for `nfpi page`, which does not read the preset.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
from pydantic import Field

from nfpi.config.base import Name
from nfpi.config.settings import Config
from nfpi.page.pictures import Picture, embed_file
from nfpi.results.claims.layout import CLAIMS, lay_out_claims, read_claims
from nfpi.results.tables.building import read_table
from nfpi.results.tables.layout import lay_out
from nfpi.results.tables.markup import TextTable
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import COLLECTED_FOLDER, FIGURES_FOLDER, TABLES_FOLDER
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import Record, check_record, read_json_object
from nfpi.runtime.manifests import find_product

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

    tables: dict[Name, str] = {}
    figures: dict[Name, FigureDescription] = {}
    runs: list[str] | None = None


def describe_preset(config: Config) -> Descriptions:
    """Return titles, captions and runs of a preset."""
    figures = {
        name: FigureDescription(title=one.title, caption=one.describe(config), pictures=one.picture_names(name))
        for name, one in config.figures.items()
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


# ---- what was made --------------------------------------------------------------------------------------------


@dataclass
class Product:
    """A table, a figure, or the claims.

    Attributes:
        name: its name in the preset.
        title: its title.
        caption: its caption.
        files: files in all formats, relative to the page; empty if it was not made.
        frame: the table as read.
        tables: laid-out tables, with their titles.
        pictures: its pictures.
        faults: one line per missing or damaged file.
    """

    name: str
    title: str = ""
    caption: str = ""
    files: list[str] = field(default_factory=list)
    frame: pd.DataFrame | None = field(default=None, repr=False)
    tables: list[tuple[str, TextTable]] = field(default_factory=list, repr=False)
    pictures: list[Picture] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_tables(root: Path, titles: Mapping[str, str]) -> list[Product]:
    """Read the tables of a preset in order, and others in the folder of results."""
    folders = (TABLES_FOLDER, COLLECTED_FOLDER)
    existing = sorted({path.stem for folder in folders for path in root.glob(f"{folder}/*.csv")})
    return [_read_table(root, name, titles.get(name, "")) for name in dict.fromkeys([*titles, *existing])]


def read_figures(root: Path, described: Mapping[str, FigureDescription]) -> list[Product]:
    """Read the described figures, and other pictures in the folder of results."""
    claimed = {picture for figure in described.values() for picture in figure.pictures}
    others = sorted({path.stem for path in root.glob(f"{FIGURES_FOLDER}/*.png")} - claimed)
    figures = [_read_figure(root, name, figure) for name, figure in described.items()]
    return figures + [_read_figure(root, name, FigureDescription(pictures=[name])) for name in others]


def read_shown_claims(root: Path) -> Product:
    """Read the verdicts on claims in a folder of results."""
    path = root / f"{CLAIMS}.csv"
    shown = Product(CLAIMS, files=_list_files(root, "", [CLAIMS]))
    try:
        if find_product(path) is not None or shown.files:  # a file that differs from its manifest is a fault
            shown.tables = lay_out_claims(read_claims(path))
            shown.pictures.append(embed_file(root, f"{CLAIMS}.png", "Figure: differences that decide the claims"))
    except (ValueError, OSError) as error:
        shown.faults.append(format_error(error))
    return shown


def _read_table(root: Path, name: str, title: str) -> Product:
    path = root / TABLES_FOLDER / f"{name}.csv"
    shown = Product(name, title or name)
    try:
        shown.files = _list_files(root, TABLES_FOLDER, [name]) if path.is_file() else []
        if find_product(path) is not None or shown.files:  # a file that differs from its manifest is a fault
            shown.frame = read_table(path)
            shown.tables = [(shown.title, lay_out(shown.frame))]
    except (ValueError, OSError) as error:
        shown.faults.append(format_error(error))
    return shown


def _read_figure(root: Path, name: str, figure: FigureDescription) -> Product:
    files = _list_files(root, FIGURES_FOLDER, dict.fromkeys([*figure.pictures, name]))
    shown = Product(name, figure.title or name, figure.caption, files)
    for picture in figure.pictures if files else []:
        folder, file = root / FIGURES_FOLDER, f"{picture}.png"
        label = f" ({picture})" if len(figure.pictures) > 1 else ""
        try:
            shown.pictures.append(embed_file(folder, file, f"Figure: {shown.title}{label}", picture if label else ""))
        except FileNotFoundError:
            shown.faults.append(f"{folder / file}: missing")
        except (ValueError, OSError) as error:
            shown.faults.append(str(error))
    return shown


def _list_files(root: Path, folder: str, stems: Iterable[str]) -> list[str]:
    """Return the files with these stems in a folder, relative to `root`."""
    files = sorted((root / folder).glob("*"))
    return [path.relative_to(root).as_posix() for stem in stems for path in files if path.stem == stem]
