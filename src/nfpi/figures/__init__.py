"""Figures, sized for one column of a paper and readable by the colour-blind."""

from nfpi.figures.accuracy_against_weight import accuracy_against_weight
from nfpi.figures.figure1 import EMBEDDING_COLUMNS, class_gaussians
from nfpi.figures.fixed_point import CONVERGENCE_COLUMNS, RESIDUAL_COLUMNS, convergence_map, residuals
from nfpi.figures.samples import augmentations, samples
from nfpi.figures.style import COLUMN_WIDTH, FigureError, notice, save_figure

__all__ = [
    "COLUMN_WIDTH",
    "CONVERGENCE_COLUMNS",
    "EMBEDDING_COLUMNS",
    "RESIDUAL_COLUMNS",
    "FigureError",
    "accuracy_against_weight",
    "augmentations",
    "class_gaussians",
    "convergence_map",
    "notice",
    "residuals",
    "samples",
    "save_figure",
]
