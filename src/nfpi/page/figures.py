"""The figures of a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nfpi.page.described import DescribedFigure
from nfpi.page.pictures import Picture, embed


@dataclass(frozen=True)
class ShownFigure:
    """A figure, or why there is none.

    Attributes:
        name: in the preset.
        title: above it.
        caption: below it.
        pictures: one or more.
        files: its other forms and its numbers, relative to the page.
        faults: a line for each picture that is missing or damaged.
    """

    name: str
    title: str
    caption: str
    pictures: list[Picture] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def is_made(self) -> bool:
        """Whether there is a file."""
        return bool(self.files)


def read_figures(root: Path, described: Mapping[str, DescribedFigure]) -> list[ShownFigure]:
    """Return the figures that are described, and other pictures that lie there."""
    claimed = {picture for figure in described.values() for picture in figure.pictures}
    others = sorted({path.stem for path in root.glob("figures/*.png")} - claimed)
    figures = [_read(root, name, figure) for name, figure in described.items()]
    return figures + [_read(root, name, DescribedFigure(pictures=[name])) for name in others]


def _read(root: Path, name: str, figure: DescribedFigure) -> ShownFigure:
    folder = root / "figures"
    shown = ShownFigure(name, figure.title or name, figure.caption)
    for stem in dict.fromkeys([*figure.pictures, name]):
        shown.files.extend(f"figures/{file.name}" for file in sorted(folder.glob(f"{stem}.*")))
    if not shown.is_made:
        return shown
    for picture in figure.pictures:
        path = folder / f"{picture}.png"
        if not path.is_file():
            shown.faults.append(f"{path}: missing")
            continue
        try:
            label = f" ({picture})" if len(figure.pictures) > 1 else ""
            shown.pictures.append(embed(path, f"Figure: {shown.title}{label}", picture if label else ""))
        except (ValueError, OSError) as error:
            shown.faults.append(str(error))
    return shown
