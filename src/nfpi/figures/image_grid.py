"""Images in rows and columns with labels, for figures of a flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from nfpi.data.autoencoder import load_decoder
from nfpi.figures.style import COLUMN_WIDTH, STYLE, FigureError

_FINE = 256
"""Small images are enlarged by a whole factor to about this many pixels, so that each pixel stays a sharp square."""

_GAP = 0.06
"""Distance of two images, as a share of an image's side."""

_DECODED_AT_A_TIME = 8


def to_pixels(images: Tensor, data: Mapping[str, Any], device: torch.device) -> np.ndarray:
    """Turn images as a flow's domain stores them into pixels; latents are decoded.

    Args:
        images: (R, C, channels, H, W); uint8, or float16 latents of an autoencoder.
        data: what a model knows of its training images, see :class:`nfpi.model.ClassConditionalFlow`.
        device: where latents are decoded.

    Returns:
        (R, C, H, W, channels), uint8.
    """
    rows, columns = images.shape[:2]
    images = images.flatten(0, 1)
    if images.dtype != torch.uint8:
        decoder = load_decoder(data, device)
        images = torch.cat([decoder(part.to(device)).cpu() for part in images.split(_DECODED_AT_A_TIME)])
    return images.unflatten(0, (rows, columns)).permute(0, 1, 3, 4, 2).numpy()


def draw_image_grid(
    images: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    first_apart: bool = False,
) -> Figure:
    """Draw images with labels at the left and on top.

    Args:
        images: (R, C, H, W, channels), uint8, 1 or 3 channels.
        rows: R labels.
        columns: C labels; long ones are slanted.
        row_title: what the labels of rows are.
        column_title: what the labels of columns are; slanted ones have no title.
        first_apart: whether the first column stands apart from the others.

    Raises:
        FigureError: the numbers of rows or columns do not fit, or the images are not pixels.
    """
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[4] not in (1, 3):
        raise FigureError(f"expected images (R, C, H, W, 1 or 3), uint8, received {images.shape}, {images.dtype}")
    if images.shape[:2] != (len(rows), len(columns)):
        raise FigureError(f"expected {len(rows)}×{len(columns)} images, received {images.shape[0]}×{images.shape[1]}")
    mosaic, lefts, tops = _arrange(images, first_apart)
    height, width = mosaic.shape[0] - tops[-1], mosaic.shape[1] - lefts[-1]
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
        else:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="left", rotation_mode="anchor")
        axes.set_ylabel(row_title, fontsize=7)
        axes.spines[:].set_visible(False)
    return figure


def _arrange(images: np.ndarray, first_apart: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mosaic, enlarged (H, W, 3), and where its columns (C,) and rows (R,) begin."""
    rows, columns = images.shape[:2]
    times = max(1, _FINE // max(images.shape[2:4]))
    large = np.broadcast_to(images, (*images.shape[:4], 3)).repeat(times, 2).repeat(times, 3)
    height, width = large.shape[2:4]
    gap = max(1, round(_GAP * max(height, width)))
    lefts = np.arange(columns) * (width + gap)
    if first_apart:
        lefts[1:] += 2 * gap
    tops = np.arange(rows) * (height + gap)
    mosaic = np.full((tops[-1] + height, lefts[-1] + width, 3), 255, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            mosaic[top : top + height, left : left + width] = large[row, column]
    return mosaic, lefts, tops
