"""Registration of figures, and their way from input files to drawn files.

All modules of this package import matplotlib, pandas and torch only in the functions that compute and draw, since
planning the workflow imports the settings of figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from nfpi.config.base import ConfigError, Name
from nfpi.config.experiments import FIGURES, FigureSettings
from nfpi.config.settings import Config
from nfpi.figures.style import FigureError, notice, render_figure
from nfpi.runs import IMAGE_SET_FILES, SPLITS, TABLES_FOLDER, Layout
from nfpi.runtime.files import write_atomically, written_together

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


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
        """Return the only file with this role."""
        (file,) = self.files[name]
        return file

    def folder(self, name: str) -> Path:
        """Return the folder of all files with this role."""
        (folder,) = {file.parent for file in self.files[name]}
        return folder


@dataclass(frozen=True)
class Drawn:
    """A drawn figure.

    Attributes:
        pictures: pictures by file name, without suffix.
        table: the numbers that they show.
    """

    pictures: Mapping[str, Figure]
    table: pd.DataFrame | None = None


class RunFigure(FigureSettings):
    """Base class of figures of runs of one backbone and prior on a data set."""

    dataset: Name
    flow: Name = "mef"
    prior: Name = "fpi"


class TableFigure(FigureSettings):
    """Base class of figures of a table of results; they are drawn whenever this table is made."""

    is_quick = True

    table: Name

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the csv file of the table."""
        return {"table": [layout.path(f"{TABLES_FOLDER}/{self.table}.csv")]}


Draw = TypeVar("Draw", bound=Callable[[Any, FigureInputs], Drawn])


def register_figure(name: str, settings: type[FigureSettings]) -> Callable[[Draw], Draw]:
    """Register a function that draws the figure `name`.

    The function is called with `(settings, inputs)` and returns a :class:`Drawn`. Presets include the figure by a block
    of its settings under `figures:`.

    Args:
        name: name of the figure, of its block in a preset and of its target.
        settings: settings class of the figure, which names its input files.

    Raises:
        ConfigError: the name, or that of a picture, is taken; or the function has other arguments.

    Examples:
        >>> class Residual(FigureSettings):
        ...     dataset: str
        ...     def files(self, config, layout):
        ...         run = config.run(self.dataset, "mef", "fpi", 1e4, config.seeds[0])
        ...         return {"iterations": [f"{layout.of(run)}/fit/fixed_point.csv"]}
        >>> @register_figure("residual", Residual)
        ... def draw_residual(settings, inputs):
        ...     figure = Figure(figsize=(3.4, 2))
        ...     figure.subplots().plot(pd.read_csv(inputs.file("iterations"))["mean_residual"])
        ...     return Drawn({"residual": figure})
    """

    def register(draw: Draw) -> Draw:
        for other in FIGURES:
            named = cast(type[FigureSettings], FIGURES[other].settings).picture_names(other)
            for picture in set(named) & set(settings.picture_names(name)) if other != name else ():
                raise ConfigError(f"figure '{name}': expected new names of pictures, received {picture} of '{other}'")
        FIGURES.register(name, settings, draw)
        return draw

    return register


def draw_figure(name: str, settings: FigureSettings | Mapping[str, Any], inputs: FigureInputs) -> Drawn:
    """Draw a registered figure; if a fit that it depends on diverged, its pictures say so.

    Args:
        name: name of the figure.
        settings: its settings, or their JSON.
        inputs: its input files and other settings.

    Raises:
        ConfigError: unknown figure.
        ValidationError: invalid settings.
        FigureError: the inputs are unsuitable, or pictures and table are not those declared by the settings.
    """
    import pandas as pd

    from nfpi.runtime.divergence import Diverged

    variant = FIGURES[name]
    settings = cast(FigureSettings, variant.settings.model_validate(settings))
    pictures = settings.picture_names(name)
    try:
        drawn: Drawn = variant.build(settings, inputs)
    except Diverged as fault:
        table = pd.DataFrame([{"outcome": str(fault)}]) if settings.has_table else None
        return Drawn({picture: notice(str(fault)) for picture in pictures}, table)
    if sorted(drawn.pictures) != sorted(pictures) or (drawn.table is not None) != settings.has_table:
        expected = f"the pictures {', '.join(pictures)} {'and a' if settings.has_table else 'without a'} table"
        received = f"{', '.join(drawn.pictures) or 'none'} {'without a' if drawn.table is None else 'and a'} table"
        raise FigureError(f"figure '{name}': expected {expected}, received {received}")
    return drawn


def save_drawn(drawn: Drawn, folder: Path, name: str) -> None:
    """Write every picture as PNG (300 pixels per inch) and PDF, and the table as `name`.csv, either all or none.

    The bytes of the files are reproducible.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    from nfpi.results.recorded.csv_files import write_csv

    with written_together():
        for picture, figure in drawn.pictures.items():
            for suffix in ("png", "pdf"):
                write_atomically(folder / f"{picture}.{suffix}", render_figure(figure, suffix))
        if drawn.table is not None:
            write_csv(drawn.table, folder / f"{name}.csv")


def list_split_files(config: Config, layout: Layout, dataset: str, split: str) -> list[str]:
    """Return the files of a split of a data set, as used by runs of the first seed."""
    folder = layout.path(SPLITS, dataset=dataset, splits=config.splits_of(dataset, config.seeds[0]))
    return [f"{folder}/{split}/{file}" for file in IMAGE_SET_FILES.values()]
