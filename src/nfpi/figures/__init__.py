"""Figures, sized for one column of a paper and readable by the colour-blind."""

from nfpi.figures.accuracy import accuracy_against_weight
from nfpi.figures.style import COLUMN_WIDTH, FigureError, notice, save_figure

__all__ = ["COLUMN_WIDTH", "FigureError", "accuracy_against_weight", "notice", "save_figure"]
