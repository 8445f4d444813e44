"""Sizes, colours and formats of all figures.

Figures fit one column of a paper and are readable by the colour-blind. They use :class:`matplotlib.figure.Figure`
directly instead of pyplot, so they need neither a display nor global state.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.4
"""Width of a figure, inches."""

PANEL_HEIGHT = 1.9
"""Height of one panel, inches."""

LEGEND_HEIGHT = 0.4
"""Height of the legend, inches."""

RESOLUTION = 300
"""Pixels per inch of PNG files."""

_LEFT_OUT: dict[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
"""Metadata to leave out, as it would make files of the same figure differ."""

OKABE_ITO = {"blue": "#0072B2", "vermillion": "#D55E00"}
"""Colours for two series, from the palette of Okabe and Ito (2008)."""

CLASS_COLOURS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#114455", "#92dadd"),
)
"""Ten colours that stay distinct under all common colour-vision deficiencies (Petroff 2021, arXiv:2107.02270).

A dark petrol blue replaces Petroff's second grey, since two greys are hard to distinguish as small points.
"""

CLASS_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "*", ">")
"""Ten markers, which form a hundred pairs with the colours."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.92",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # embedded as TrueType: text stays text
}


class FigureError(ValueError):
    """Nothing to draw, or unsuitable inputs; the message is one line."""


def get_class_style(index: int) -> tuple[str, str]:
    """Return the colour and the marker of a class; they repeat after a hundred classes."""
    decade, digit = divmod(index, len(CLASS_COLOURS))
    return CLASS_COLOURS[digit], CLASS_MARKERS[(digit + decade) % len(CLASS_MARKERS)]


def format_weight_label(weight: float, _position: float | None = None) -> str:
    """Format λ in math mode: 0, 500, 10³, 3·10⁴."""
    from nfpi.results.numbers import split_weight

    mantissa, exponent = split_weight(weight)
    if exponent == 0:
        return f"${mantissa}$"
    return rf"$10^{{{exponent}}}$" if mantissa == "1" else rf"${mantissa}\cdot10^{{{exponent}}}$"


def escape_math(text: str) -> str:
    """Escape dollar signs in a user's text, such as a label or the name of a class, which would begin a formula."""
    return text.replace("$", r"\$")


def collect_legend(grid: Iterable[Axes]) -> dict[str, Any]:
    """Return the handles of a legend for several axes by their label; those of the same label look alike."""
    return {label: handle for axes in grid for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}


@contextmanager
def new_figure(
    height: float, width: float = COLUMN_WIDTH, layout: Mapping[str, Any] | None = MappingProxyType({})
) -> Iterator[Figure]:
    """Create a figure; what is drawn in this context has the style of all figures.

    Args:
        height, width: size in inches.
        layout: settings of matplotlib's constrained layout; None: axes stay where they are put.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        if layout is not None:
            figure.set_layout_engine("constrained", **layout)
        yield figure


def render_figure(figure: Figure, suffix: str, resolution: int = RESOLUTION) -> bytes:
    """Return the contents of a figure's file, png or pdf; they are reproducible.

    Args:
        figure: the figure.
        suffix: `png` or `pdf`.
        resolution: pixels per inch.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=suffix, dpi=resolution, metadata=_LEFT_OUT[suffix])
    return buffer.getvalue()


def notice(message: str) -> Figure:
    """Draw a message instead of a figure that cannot be drawn."""
    with new_figure(0.8, layout=None) as figure:
        figure.text(0.5, 0.5, message, ha="center", va="center", fontsize=7, color="0.3", wrap=True)
    return figure
