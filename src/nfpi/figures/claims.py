"""Forest plot of the differences that decide the paper's claims, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from nfpi.config.metrics import find_metric
from nfpi.figures.style import COLUMN_WIDTH, escape_math, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 2.2 * COLUMN_WIDTH
"""Width of the figure in inches, that of a page."""
_LINE = 0.165
"""Height of a line in inches."""
_HEAD = 0.75
"""Height of the legend and the axis in inches."""
_LEFT, _RIGHT = 0.40, 0.66
"""Left and right edge of the plot, as shares of the width; comparisons are named to its left, verdicts to
its right."""

_FONT = 6.5
"""Size of the text of a comparison in points."""
_LETTERS = 60
"""Number of letters of size `_FONT` that fit left of the plot."""
_VERDICTS = {
    "holds": ("#0072B2", "o", "full"),
    "too small to matter": ("#56B4E9", "D", "full"),
    "inconclusive": ("0.45", "o", "none"),
    "does not hold": ("#E69F00", "X", "full"),
    "contradicted": ("#D55E00", "X", "full"),
    "not run": ("0.6", "", "none"),
}
"""Colour (palette of Okabe and Ito), marker and fill style of each verdict."""
_CLAIM_COLOURS = {
    "replicated": "#0072B2",
    "replicated in part": "#0072B2",
    "not replicated": "#E69F00",
    "contradicted in part": "#D55E00",
    "contradicted": "#D55E00",
    "inconclusive": "0.35",
    "not run": "0.6",
}
"""Colour of the verdict on a claim."""


def draw_claims(verdicts: pd.DataFrame) -> Figure:
    """Draw one line per comparison, below the statement of its claim.

    Signs are such that a positive difference favours the claim. The axis is linear up to 1 and logarithmic beyond, in
    the unit of each comparison's metric. The shaded range covers differences that do not matter.

    Args:
        verdicts: result of :func:`nfpi.results.claims.judging.judge_claims`, at least one row.
    """
    from nfpi.results.claims.layout import has_several_datasets, orient

    verdicts = orient(verdicts)
    lines: list[tuple[Callable[..., None], dict[str, Any]]] = []
    draw_comparison = partial(_draw_comparison, with_dataset=has_several_datasets(verdicts))
    for row in verdicts.to_dict("records"):
        if not lines or lines[-1][1]["claim"] != row["claim"]:
            lines.append((_write_claim, row))
        lines.append((draw_comparison, row))
    height = _LINE * len(lines) + _HEAD
    with new_figure(height, WIDTH, layout=None) as figure:
        axes = figure.add_axes((_LEFT, 0.42 / height, _RIGHT - _LEFT, _LINE * len(lines) / height))
        axes.set_ylim(len(lines) - 0.5, -0.5)
        _scale_axis(axes, verdicts)
        for place, (draw, row) in enumerate(lines):
            draw(axes, place, row)
        axes.axvline(0, color="black", linewidth=0.6, zorder=1)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("Difference in the metric's unit; a positive one favours the claim")
        _add_legend(figure, verdicts)
    return figure


def _scale_axis(axes: Axes, verdicts: pd.DataFrame) -> None:
    """Set a symmetric logarithmic axis that covers all values."""
    drawn = verdicts[["difference", "low", "high", "paper_difference", "threshold"]].stack().dropna()
    low, high = min(drawn.min(), -1.0), max(drawn.max(), 1.0)
    axes.set_xscale("symlog", linthresh=1.0, linscale=1.0)
    axes.set_xlim(1.3 * low, 1.3 * high)
    sizes = (1, 3, 10, 30) if max(-low, high) < 40 else (1, 10, 100, 1000)
    ticks = [sign * size for size in sizes for sign in (-1, 1)]
    shown = sorted([0.0, *(tick for tick in ticks if low <= tick <= high)])
    axes.set_xticks(shown, [f"{tick:+g}".replace("-", "−") if tick else "0" for tick in shown])
    axes.minorticks_off()


def _write_claim(axes: Axes, place: int, row: dict[str, Any]) -> None:
    """Write the statement over the whole width, with the verdict at its end."""
    transform = axes.get_yaxis_transform()
    left, right = _compute_edges()
    axes.axhspan(place - 0.5, place + 0.5, xmin=left, xmax=right, color="0.93", linewidth=0, clip_on=False, zorder=2)
    name = f"{row['number']}. " if row["number"] else ""
    statement = _shorten(f"{name}{row['statement']}", 98)
    common: dict[str, Any] = {"transform": transform, "va": "center", "fontsize": 7, "zorder": 4}
    axes.text(left + 0.01, place, escape_math(statement), fontweight="bold", **common)
    colour = _CLAIM_COLOURS[row["claim_verdict"]]
    axes.text(right - 0.01, place, row["claim_verdict"], fontweight="bold", ha="right", color=colour, **common)


def _draw_comparison(axes: Axes, place: int, row: dict[str, Any], *, with_dataset: bool) -> None:
    from nfpi.results.claims import layout

    colour, marker, filling = _VERDICTS[row["verdict"]]
    difference, low, high, edge, paper = (
        row[name] for name in ("difference", "low", "high", "threshold", "paper_difference")
    )
    axes.fill_betweenx([place - 0.42, place + 0.42], min(0.0, edge), max(0.0, edge), color="0.85", linewidth=0)
    if not math.isnan(difference):
        if not math.isnan(low):
            axes.plot([low, high], [place, place], color=colour, linewidth=1.2, solid_capstyle="butt", zorder=5)
        style: dict[str, Any] = {"marker": marker, "fillstyle": filling, "markersize": 4.5, "markeredgewidth": 0.9}
        axes.plot(difference, place, color=colour, markerfacecoloralt="white", zorder=6, **style)
    if not math.isnan(paper):
        axes.plot(paper, place, color="black", marker="|", markersize=8, markeredgewidth=1.3, zorder=7)
    left, right = _compute_edges()
    entry = find_metric(row["metric"])
    common: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": _FONT}
    measured = f"{entry.label} on {row['dataset']}" if with_dataset else entry.label
    compared = _shorten(f"{measured}: {layout.describe_comparison(row)}", 80)
    smaller = {"fontsize": _FONT * min(1.0, _LETTERS / len(compared))}
    axes.text(left + 0.025, place, escape_math(compared), **common | smaller)
    unit = f" {entry.unit}" if entry.unit and not math.isnan(difference) else ""
    axes.text(1.02, place, layout.format_difference(row) + unit, color="0.2", **common)
    axes.text(right - 0.01, place, row["verdict"], ha="right", color=colour, **common)


def _compute_edges() -> tuple[float, float]:
    """Return the left and the right edge of the figure in axes coordinates."""
    return (0.01 - _LEFT) / (_RIGHT - _LEFT), (0.99 - _LEFT) / (_RIGHT - _LEFT)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _add_legend(figure: Figure, verdicts: pd.DataFrame) -> None:
    """Add a legend of marks and shading above the lines."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for verdict, (colour, marker, filling) in _VERDICTS.items():
        if marker and (verdicts["verdict"] == verdict).any():
            style: dict[str, Any] = {"marker": marker, "fillstyle": filling, "color": colour, "markersize": 4.5}
            handles.append(Line2D([], [], linewidth=1.2, label=verdict, **style))
    if verdicts["paper_difference"].notna().any():
        style = {"marker": "|", "markersize": 8, "markeredgewidth": 1.3, "color": "black", "linestyle": "none"}
        handles.append(Line2D([], [], label="the paper's", **style))
    handles.append(Patch(color="0.85", label="does not matter"))
    figure.legend(handles=handles, loc="upper center", ncols=len(handles))
