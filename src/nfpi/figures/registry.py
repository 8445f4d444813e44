"""Registration and drawing of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import pandas as pd

from nfpi.config.figures import FIGURES, FigureSettings
from nfpi.figures.drawn import Drawn, FigureInputs
from nfpi.figures.style import FigureError, notice
from nfpi.runtime.divergence import Diverged

Draw = TypeVar("Draw", bound=Callable[[Any, FigureInputs], Drawn])


def register_figure(name: str, settings: type[FigureSettings]) -> Callable[[Draw], Draw]:
    """Register a function that draws the figure `name`.

    The function is called with `(settings, inputs)` and returns a :class:`Drawn`. Presets include the figure by a block
    of its settings under `figures:`.

    Args:
        name: name of the figure, of its block in a preset and of its target.
        settings: settings class of the figure, which names its input files.

    Raises:
        TypeError: the settings class is not a subclass of FigureSettings.
        ConfigError: the name is taken; or the function has other arguments.

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
    FIGURES.require_name(name)
    if not (isinstance(settings, type) and issubclass(settings, FigureSettings)):
        received = getattr(settings, "__name__", repr(settings))
        raise TypeError(f"figure '{name}': expected a subclass of FigureSettings, received {received}")

    def register(draw: Draw) -> Draw:
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
    variant = FIGURES[name]
    settings = cast(FigureSettings, variant.settings.model_validate(settings))
    pictures = settings.picture_names(name)
    try:
        drawn: Drawn = variant.build(settings, inputs)
    except Diverged as fault:
        table = pd.DataFrame([{"outcome": str(fault)}]) if settings.has_table else None
        return Drawn({picture: notice(str(fault)) for picture in pictures}, table)
    if sorted(drawn.pictures) != sorted(pictures):
        expected, received = ", ".join(sorted(pictures)), ", ".join(sorted(drawn.pictures))
        raise FigureError(f"figure '{name}': expected the pictures {expected}, received {received or 'none'}")
    if (drawn.table is not None) != settings.has_table:
        expected, received = ("a table", "none") if settings.has_table else ("no table", "one")
        raise FigureError(f"figure '{name}': expected {expected}, received {received}")
    return drawn
