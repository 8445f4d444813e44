"""Figures of a flow: settings in common, and labelled grids of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from nfpi.config.base import NonNegativeFloat
from nfpi.config.settings import Config
from nfpi.figures.drawn import RunFigure
from nfpi.figures.style import COLUMN_WIDTH, escape_math, new_figure
from nfpi.runs import MODEL_FILES, Layout, format_weight

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

_ENLARGED_SIZE = 256
"""Small images are enlarged by the largest integer factor to at most this many pixels, so that pixels stay sharp
squares."""

_GAP = 0.06
"""Gap between two images, as a share of the image size."""

_TALLEST, _NARROWEST = 5.5, 1.2
"""Largest height of all images and smallest width of a figure, inches; few columns of many rows have small images."""

_NOTE_HEIGHT = 0.11
"""Height of the note below each image, inches."""

_LONGEST_LABEL = 30
"""Number of characters to which the labels of rows are shortened, which leaves room for the images beside them."""

_BATCH_SIZE = 8


class FlowFigure(RunFigure):
    """Base class of figures of one flow, trained with the first seed."""

    uses_gpu = True

    weight: NonNegativeFloat = Field(0.0, alias="lambda")
    """λ of the run"""

    def list_model_files(self, config: Config, layout: Layout) -> list[str]:
        """Return the files of the flow's model."""
        run = config.run(self.dataset, self.flow, self.prior, self.weight, config.seeds[0])
        return [f"{layout.of(run)}/model/{name}" for name in MODEL_FILES.values()]

    def describe_run(self, config: Config) -> str:
        """Describe the run of the flow in one line."""
        return f"{self.dataset}, {self.flow}, {self.prior}, λ = {format_weight(self.weight)}, seed {config.seeds[0]}"


def to_pixels(images: torch.Tensor, data: Mapping[str, Any], device: torch.device) -> np.ndarray:
    """Convert stored images to pixels; latents are decoded.

    Args:
        images: (R, C, channels, H, W), R rows of C images; uint8, or float16 latents of an autoencoder.
        data: description of a model's training images, see :class:`nfpi.ClassConditionalFlow`.
        device: device of the autoencoder.

    Returns:
        (R, C, H, W, channels), uint8.
    """
    import torch

    from nfpi.data.autoencoder import load_decoder

    rows, columns = images.shape[:2]
    images = images.flatten(0, 1)
    if images.dtype != torch.uint8:
        decoder = load_decoder(data, device)
        images = torch.cat([decoder(part.to(device)).cpu() for part in images.split(_BATCH_SIZE)])
    grid: np.ndarray = images.unflatten(0, (rows, columns)).permute(0, 1, 3, 4, 2).numpy()
    return grid


def draw_image_grid(
    images: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    *,
    rows_per_block: int | None = None,
    columns_per_block: int | None = None,
    notes: Sequence[Sequence[str]] = (),
) -> Figure:
    """Draw images with labels at the left and on top.

    Args:
        images: (R, C, H, W, channels), uint8, 1 or 3 channels.
        rows: R labels; long ones are shortened.
        columns: C labels; all are slanted if the longest is wider than an image or block.
        row_title: title of the row labels.
        column_title: title of the column labels, not shown if they are slanted.
        rows_per_block, columns_per_block: numbers of rows and columns after which there is a larger gap; None: all gaps
            are equal.
        notes: texts below the images, C for each of the R rows.

    Raises:
        ValueError: there are other numbers of rows or columns.
    """
    times = max(1, _ENLARGED_SIZE // max(images.shape[2:4]))
    large = np.broadcast_to(images, (*images.shape[:4], 3)).repeat(times, 2).repeat(times, 3)
    height, width = large.shape[2:4]
    rows = [text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…" for text in rows]
    blocks = np.arange(len(columns)) // (columns_per_block or len(columns))
    lefts = np.arange(len(columns)) * (width + _compute_gap(width)) + blocks * 2 * _compute_gap(width)
    label_width = 0.25 + 0.055 * max(map(len, rows))
    inches_per_pixel = (COLUMN_WIDTH - label_width) / (lefts[-1] + width)
    inches_per_pixel = min(inches_per_pixel, _TALLEST / (len(rows) * (height + _compute_gap(height))))
    room = round(_NOTE_HEIGHT / inches_per_pixel) if notes else 0
    blocks = np.arange(len(rows)) // (rows_per_block or len(rows))
    tops = np.arange(len(rows)) * (height + room + _compute_gap(height)) + blocks * 2 * _compute_gap(height)
    mosaic = np.full((tops[-1] + height + room, lefts[-1] + width, 3), 255, np.uint8)
    for line, top in zip(large, tops, strict=True):
        for image, left in zip(line, lefts, strict=True):
            mosaic[top : top + height, left : left + width] = image
    upright = max(map(len, columns)) * 0.055 < inches_per_pixel * width * (columns_per_block or 1)
    label_height = (0.33 if column_title else 0.18) if upright else 0.12 + 0.037 * max(map(len, columns))
    height_of_all = inches_per_pixel * mosaic.shape[0] + label_height
    figure_width = max(label_width + inches_per_pixel * mosaic.shape[1], _NARROWEST)
    with new_figure(height_of_all, figure_width, layout={"w_pad": 0.01, "h_pad": 0.01}) as figure:
        axes = figure.subplots()
        axes.imshow(mosaic)
        axes.set_anchor("E")  # remaining space goes to the labels
        axes.set_xticks(lefts + width / 2, list(map(escape_math, columns)))
        axes.set_yticks(tops + height / 2, list(map(escape_math, rows)))
        axes.tick_params(length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=6.5)
        axes.set_ylabel(row_title, fontsize=7)
        if upright:
            axes.set_xlabel(column_title, fontsize=7)
            axes.xaxis.set_label_position("top")
        else:
            axes.tick_params(axis="x", labelrotation=45)
            for label in axes.get_xticklabels():
                label.set(ha="left", rotation_mode="anchor")
        for top, texts in zip(tops, notes, strict=False):
            for left, text in zip(lefts, texts, strict=True):
                axes.text(left + width / 2, top + height + room / 2, text, ha="center", va="center", fontsize=6)
        axes.spines[:].set_visible(False)
    return figure


def _compute_gap(size: int) -> int:
    return max(1, round(_GAP * size))
