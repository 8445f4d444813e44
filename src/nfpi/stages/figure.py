"""The stage that draws a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from nfpi.config.figures import FIGURES
from nfpi.stages.base import Stage
from nfpi.stages.planned import Planned, Wildcards, digest_files


class MakeFigure(Stage):
    """Draw a figure, and write its numbers.

    Writes PNG and PDF, and the numbers as csv if the figure has a table.
    """

    command = "figure"
    label = "{name}"
    inputs = {"files": ()}
    common = None

    name: Annotated[str, AfterValidator(lambda name: FIGURES[name].name)]
    figure: dict[str, Any] = {}
    """settings of the figure"""
    files: dict[str, list[Path]]
    """files that the figure is drawn from"""
    reads: dict[str, dict[str, Any]] = {}
    """other settings that the figure depends on"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        name, figure = wildcards["name"], planned.config.figures[wildcards["name"]]
        return {
            "name": name,
            "figure": figure.model_dump(mode="json"),
            "reads": {key: block.model_dump(mode="json") for key, block in figure.reads(planned.config).items()},
            "code": digest_files([FIGURES[name].extension]),
        }

    def run(self) -> None:
        """Compute, draw and write a figure."""
        from nfpi.figures.drawn import FigureInputs, draw_figure, save_drawn

        drawn = draw_figure(self.name, self.figure, FigureInputs(self.files, self.reads))
        save_drawn(drawn, self.output, self.name)
