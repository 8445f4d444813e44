"""Work of the stage that draws figures."""

from __future__ import annotations

from nfpi.config import FIGURES
from nfpi.figures.drawn import Drawn, FigureInputs, save_drawn
from nfpi.figures.style import notice
from nfpi.runtime.divergence import Diverged
from nfpi.stages.options import MakeFigure


def make_figure(stage: MakeFigure) -> None:
    """Compute, draw and write; where the fit of a run that is shown diverged, the figure says so."""
    variant = FIGURES[stage.name]
    settings = variant.settings.model_validate(stage.figure)
    try:
        drawn: Drawn = variant.build(settings, FigureInputs(stage.files, stage.reads))
    except Diverged as fault:
        drawings = getattr(settings, "drawings", ()) or (stage.name,)
        drawn = Drawn({name: notice(str(fault)) for name in drawings})
    save_drawn(drawn, stage.output, stage.name)
