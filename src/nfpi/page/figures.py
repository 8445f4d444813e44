"""Figures on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nfpi.page.descriptions import FigureDescription
from nfpi.page.pictures import Picture, embed_file
from nfpi.runs import FIGURES_FOLDER


@dataclass(frozen=True)
class ShownFigure:
    """A figure, or the reasons why pictures of it are missing.

    Attributes:
        name: name in the preset.
        title: title of the figure.
        caption: caption of the figure.
        pictures: its pictures.
        files: files of pictures and numbers, relative to the page.
        faults: one line per missing or damaged picture.
    """

    name: str
    title: str
    caption: str
    pictures: list[Picture] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_made(self) -> bool:
        """Whether there are files."""
        return bool(self.files)


def read_figures(root: Path, described: Mapping[str, FigureDescription]) -> list[ShownFigure]:
    """Read the described figures, and other pictures in the folder of results."""
    claimed = {picture for figure in described.values() for picture in figure.pictures}
    others = sorted({path.stem for path in root.glob(f"{FIGURES_FOLDER}/*.png")} - claimed)
    figures = [_read_shown_figure(root, name, figure) for name, figure in described.items()]
    return figures + [_read_shown_figure(root, name, FigureDescription(pictures=[name])) for name in others]


def _read_shown_figure(root: Path, name: str, figure: FigureDescription) -> ShownFigure:
    folder = root / FIGURES_FOLDER
    shown = ShownFigure(name, figure.title or name, figure.caption)
    for stem in dict.fromkeys([*figure.pictures, name]):
        shown.files.extend(f"{FIGURES_FOLDER}/{file.name}" for file in sorted(folder.glob("*")) if file.stem == stem)
    if not shown.is_made:
        return shown
    for picture in figure.pictures:
        path = folder / f"{picture}.png"
        if not path.is_file():
            shown.faults.append(f"{path}: missing")
            continue
        try:
            label = f" ({picture})" if len(figure.pictures) > 1 else ""
            shown.pictures.append(embed_file(path, f"Figure: {shown.title}{label}", picture if label else ""))
        except (ValueError, OSError) as error:
            shown.faults.append(str(error))
    return shown
