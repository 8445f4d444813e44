"""Run `nfpi figure`."""

from __future__ import annotations

from nfpi.figures.drawn import FigureInputs, save_drawn
from nfpi.figures.registry import draw_figure
from nfpi.stages.options import MakeFigure


def make_figure(stage: MakeFigure) -> None:
    """Compute, draw and write a figure."""
    drawn = draw_figure(stage.name, stage.figure, FigureInputs(stage.files, stage.reads))
    save_drawn(drawn, stage.output, stage.name)
