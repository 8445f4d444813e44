"""Images in rows and columns: samples of a flow, and latent-augmented variants (figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from nfpi.figures.style import COLUMN_WIDTH, STYLE, FigureError

_FINE = 256
"""Small images are enlarged to about so many pixels, whole times, so that each pixel stays a sharp square."""

_GAP = 0.06
"""Of an image's side, between two images."""


def samples(images: np.ndarray, temperatures: Sequence[float], classes: Sequence[str]) -> Figure:
    """An image of each class, at each temperature.

    Args:
        images: (temperatures, classes, H, W, C), uint8.
        temperatures: T of the rows.
        classes: names of the columns.

    Raises:
        FigureError: the numbers of rows or columns do not fit, or images are no pixels.
    """
    return _image_grid(
        images, [f"{temperature:g}" for temperature in temperatures], classes, "Temperature $T$", "Class"
    )


def augmentations(images: np.ndarray, classes: Sequence[str]) -> Figure:
    """Figure 2: images, and beside each its latent-augmented variants.

    Args:
        images: (images, 1 + variants, H, W, C), uint8, the original first.
        classes: of the images, names.

    Raises:
        FigureError: the numbers of rows do not fit, or images are no pixels.
    """
    variants = images.shape[1] - 1
    columns = [
        "original",
        *(f"variant {number}" if variants <= 4 else str(number) for number in range(1, 1 + variants)),
    ]
    return _image_grid(images, classes, columns, "Class", "", first_apart=True)


def _image_grid(
    images: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    first_apart: bool = False,
) -> Figure:
    """Images (R, C, H, W, channels) in a mosaic with labels at the left and on top."""
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[4] not in (1, 3):
        raise FigureError(f"expected images (R, C, H, W, 1 or 3), uint8, received {images.shape}, {images.dtype}")
    if images.shape[:2] != (len(rows), len(columns)):
        raise FigureError(f"expected {len(rows)}×{len(columns)} images, received {images.shape[0]}×{images.shape[1]}")
    times = max(1, _FINE // max(images.shape[2:4]))
    large = np.broadcast_to(images, (*images.shape[:4], 3)).repeat(times, 2).repeat(times, 3)
    height, width = large.shape[2:4]
    gap = max(1, round(_GAP * max(height, width)))
    lefts = np.arange(len(columns)) * (width + gap)
    if first_apart:
        lefts[1:] += 2 * gap
    tops = np.arange(len(rows)) * (height + gap)
    mosaic = np.full((tops[-1] + height, lefts[-1] + width, 3), 255, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            mosaic[top : top + height, left : left + width] = large[row, column]
    label_width = 0.25 + 0.055 * max(map(len, rows))
    cell = (COLUMN_WIDTH - label_width) * width / mosaic.shape[1]
    upright = max(map(len, columns)) * 0.055 < cell
    label_height = (0.33 if column_title else 0.18) if upright else 0.12 + 0.037 * max(map(len, columns))
    with matplotlib.rc_context(STYLE):
        size = (COLUMN_WIDTH, (COLUMN_WIDTH - label_width) * mosaic.shape[0] / mosaic.shape[1] + label_height)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01))
        axes = figure.subplots()
        axes.imshow(mosaic)
        axes.set_anchor("E")  # what room is left over goes to the labels
        axes.set_xticks(lefts + width / 2, columns)
        axes.set_yticks(tops + height / 2, rows)
        axes.tick_params(length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=6.5)
        if upright:
            axes.set_xlabel(column_title, fontsize=7)
            axes.xaxis.set_label_position("top")
        else:  # slanted names need no title
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="left", rotation_mode="anchor")
        axes.set_ylabel(row_title, fontsize=7)
        axes.spines[:].set_visible(False)
    return figure
