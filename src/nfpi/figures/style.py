"""What all figures share: sizes, colours, how λ is written, and how a figure becomes files.

Figures are drawn on :class:`matplotlib.figure.Figure` itself: no pyplot, no display, no shared state.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from nfpi.runtime.files import write_atomically
from nfpi.results.markup import weight_parts

COLUMN_WIDTH = 3.4
"""Width of a figure, inches."""

PANEL_HEIGHT = 1.9
"""Height of one panel, inches."""

LEGEND_HEIGHT = 0.4
"""Height set aside for the legend, inches."""

RESOLUTION = 300
"""Pixels an inch in PNG files."""

OKABE_ITO = {"blue": "#0072B2", "vermillion": "#D55E00"}
"""Colours of the palette by Okabe and Ito (2008) in use here, for two series."""

CLASS_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
"""Ten colours that stay apart under all common colour-vision deficiencies (Petroff 2021, arXiv:2107.02270)."""

CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")
"""A marker beside each colour; with ten colours, a hundred pairs."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # embedded as TrueType: text stays text
}


class FigureError(ValueError):
    """Nothing to draw, or a column is missing; the message is one line."""


def require_columns(table: pd.DataFrame, needed: Iterable[str], what: str) -> None:
    """Raise :class:`FigureError` with the first column that `table`, which should be `what`, lacks."""
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise FigureError(f"expected {what}, column {missing[0]} is missing")


def class_style(index: int) -> tuple[str, str]:
    """Colour and marker of a class: the first ten differ in both, the next ten pair the colours anew."""
    decade, digit = divmod(index, len(CLASS_COLOURS))
    return CLASS_COLOURS[digit], CLASS_MARKERS[(digit + decade) % len(CLASS_MARKERS)]


def weight_label(weight: float, _position: int | None = None) -> str:
    """λ as mathematics: 0, 500, 10³, 3·10⁴."""
    mantissa, exponent = weight_parts(weight)
    if exponent == 0:
        return f"${mantissa}$"
    return rf"$10^{{{exponent}}}$" if mantissa == "1" else rf"${mantissa}\cdot10^{{{exponent}}}$"


def notice(message: str) -> Figure:
    """A figure that says why there is none: what it would show diverged."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 0.8))
        figure.text(0.5, 0.5, message, ha="center", va="center", fontsize=7, color="0.3", wrap=True)
    return figure


def save_figure(figure: Figure, stem: str | os.PathLike[str]) -> None:
    """Write `stem`.png (300 dots an inch) and `stem`.pdf, atomically; one figure always gives the same bytes.

    Raises:
        OSError: the folder or a file cannot be written.
    """
    rendered = {}
    for suffix, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format=suffix, dpi=RESOLUTION, metadata=metadata)
        rendered[suffix] = buffer.getvalue()
    for suffix, content in rendered.items():
        write_atomically(f"{os.fspath(stem)}.{suffix}", content)
