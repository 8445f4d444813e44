"""Labelled grids of images, for figures of a flow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from nfpi.data.autoencoder import load_decoder
from nfpi.figures.style import COLUMN_WIDTH, STYLE, FigureError, escape_math

_ENLARGED_SIZE = 256
"""Small images are enlarged by the largest integer factor to at most this many pixels, so that pixels stay sharp
squares."""

_GAP = 0.06
"""Gap between two images, as a share of the image size."""

_NOTE_HEIGHT = 0.11
"""Height of the note below each image, inches."""

_LONGEST_LABEL = 30
"""Number of characters to which the labels of rows are shortened, which leaves room for the images beside them."""

_BATCH_SIZE = 8


def to_pixels(images: Tensor, data: Mapping[str, Any], device: torch.device) -> np.ndarray:
    """Convert stored images to pixels; latents are decoded.

    Args:
        images: (R, C, channels, H, W), R rows of C images; uint8, or float16 latents of an autoencoder.
        data: description of a model's training images, see :class:`nfpi.model.trained.TrainedFlow`.
        device: device of the autoencoder.

    Returns:
        (R, C, H, W, channels), uint8.
    """
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
    blocks: Sequence[str] = (),
    notes: Sequence[Sequence[str]] = (),
    footnote: str = "",
    first_apart: bool = False,
    rows_are_math: bool = False,
) -> Figure:
    """Draw images with labels at the left and on top.

    Args:
        images: (R, C, H, W, channels), uint8, 1 or 3 channels.
        rows: R labels; long ones are shortened.
        columns: C labels; all are slanted if the longest is wider than an image.
        row_title: title of the row labels.
        column_title: title of the column labels, not shown if they are slanted.
        blocks: labels of separated blocks with equal numbers of rows, shown instead of `row_title`.
        notes: texts below the images, C for each of the R rows.
        footnote: text below the grid.
        first_apart: whether an additional gap follows the first column.
        rows_are_math: whether a dollar sign in `rows` begins a formula; in `columns` it never does.

    Raises:
        FigureError: inconsistent numbers of rows, columns, blocks or notes, or images that are not pixels.
    """
    if images.ndim != 5 or images.dtype != np.uint8 or images.shape[4] not in (1, 3):
        raise FigureError(f"expected images (R, C, H, W, 1 or 3), uint8, received {images.shape}, {images.dtype}")
    if images.shape[:2] != (len(rows), len(columns)):
        raise FigureError(f"expected {len(rows)}×{len(columns)} images, received {images.shape[0]}×{images.shape[1]}")
    if blocks and len(rows) % len(blocks):
        raise FigureError(
            f"expected blocks with equal numbers of rows, received {len(rows)} rows, {len(blocks)} blocks"
        )
    if notes and [len(texts) for texts in notes] != [len(columns)] * len(rows):
        raise FigureError(f"expected {len(rows)}×{len(columns)} notes, received rows of {[*map(len, notes)]}")
    large = _enlarge(images)
    height, width = large.shape[2:4]
    lefts = _compute_offsets(len(columns), width, [1] if first_apart else [])
    rows = [text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…" for text in rows]
    label_width = 0.4 if blocks else 0.25 + 0.055 * max(map(len, rows))
    inches_per_pixel = (COLUMN_WIDTH - label_width) / (lefts[-1] + width)
    rows_per_block = len(rows) // max(1, len(blocks))
    room = round(_NOTE_HEIGHT / inches_per_pixel) if notes else 0
    tops = _compute_offsets(len(rows), height, range(rows_per_block, len(rows), rows_per_block) if blocks else [], room)
    mosaic = _arrange(large, lefts, tops, room)
    upright = max(map(len, columns)) * 0.055 < inches_per_pixel * width
    label_height = (0.33 if column_title else 0.18) if upright else 0.12 + 0.037 * max(map(len, columns))
    with matplotlib.rc_context(STYLE):
        size = (COLUMN_WIDTH, inches_per_pixel * mosaic.shape[0] + label_height + (0.17 if footnote else 0))
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01))
        axes = figure.subplots()
        axes.imshow(mosaic)
        axes.set_anchor("E")  # remaining space goes to the labels
        axes.set_xticks(lefts + width / 2, list(map(escape_math, columns)))
        axes.set_yticks(tops + height / 2, rows if rows_are_math else list(map(escape_math, rows)))
        axes.tick_params(length=0, pad=2, top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=6.5)
        if upright:
            axes.set_xlabel(column_title, fontsize=7)
            axes.xaxis.set_label_position("top")
        else:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="left", rotation_mode="anchor")
        if blocks:
            _add_block_labels(axes, blocks, tops.reshape(len(blocks), -1).mean(1) + height / 2)
        else:
            axes.set_ylabel(row_title, fontsize=7)
        for top, texts in zip(tops, notes, strict=False):
            for left, text in zip(lefts, texts, strict=True):
                axes.text(left + width / 2, top + height + room / 2, text, ha="center", va="center", fontsize=6)
        if footnote:
            figure.supxlabel(footnote, fontsize=6.5)
        axes.spines[:].set_visible(False)
    return figure


def _add_block_labels(axes: Axes, labels: Sequence[str], middles: np.ndarray) -> None:
    """Add labels of blocks of rows, rotated by 90°, left of the row labels."""
    for label, middle in zip(labels, middles, strict=True):
        axes.annotate(
            label,
            (0, middle),
            (-16, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="center",
            fontsize=7,
        )


def _enlarge(images: np.ndarray) -> np.ndarray:
    """Convert images to colour, and enlarge small ones by an integer factor."""
    times = max(1, _ENLARGED_SIZE // max(images.shape[2:4]))
    return np.broadcast_to(images, (*images.shape[:4], 3)).repeat(times, 2).repeat(times, 3)


def _compute_offsets(count: int, size: int, apart: Iterable[int], room: int = 0) -> np.ndarray:
    """Return the offsets of `count` images of a size in a row or column.

    Args:
        count: number of images.
        size: height or width of an image.
        apart: indices of images with an additional gap before them.
        room: space after each image.
    """
    gap = max(1, round(_GAP * size))
    places = np.arange(count) * (size + room + gap)
    for index in apart:
        places[index:] += 2 * gap
    return places


def _arrange(images: np.ndarray, lefts: np.ndarray, tops: np.ndarray, room: int) -> np.ndarray:
    """Arrange images (R, C, height, width, 3) into a mosaic (H, W, 3), with `room` below each row."""
    height, width = images.shape[2:4]
    mosaic = np.full((tops[-1] + height + room, lefts[-1] + width, 3), 255, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            mosaic[top : top + height, left : left + width] = images[row, column]
    return mosaic
