"""The fixed-point iteration: its residuals, and where it converges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from nfpi.figures.style import COLUMN_WIDTH, STYLE, FigureError, require_columns, weight_label

RESIDUAL_COLUMNS = {"iteration": "int64", "mean_residual": "float64", "variance_residual": "float64"}
"""Columns of the residuals of a fit, with their types."""

CONVERGENCE_COLUMNS = {
    "dataset": "str",
    "alpha": "float64",
    "fitted": "str",
    "update": "str",
    "scale": "str",
    "lambda": "float64",
    "outcome": "str",
    "iterations": "int64",
    "quantity": "str",
    "class": "str",
}
"""Columns of a map of convergence, with their types."""

_ENDS = {"converged": ("o", "converged"), "not_converged": (">", "not in {} iterations"), "diverged": ("X", "diverged")}
"""How an iteration ended: marker and label."""

_FITTED = {"both": "$μ$ and $Σ$", "mean": "$μ$ only, $Σ = I$", "variance": "$Σ$ only"}
_CODES = {
    "A (definiteness)": ("A", "$A$ not positive"),
    "repulsion kernel": ("κ", "$κ$ not finite"),
    "divergences (rounding)": ("π", "KLDs beyond rounding"),
    "mean": ("μ", "$μ$ not finite"),
    "variance": ("v", "$v$ not positive"),
}
"""Quantity that is lost where an iteration diverges: code in a cell and meaning."""

_COLOURS = colormaps["cividis"].reversed()  # cividis: the same for all eyes (Nuñez et al. 2018)


def residuals(
    curves: Sequence[tuple[float, pd.DataFrame]], *, dataset: str, tolerance: float, max_iterations: int
) -> Figure:
    """How far means and variances move in each iteration, a line for each λ.

    A panel shows max_i ‖δμ_i‖₂ or max_i ‖δv_i‖₂ against the iteration, both logarithmic, and the tolerance as a dashed
    line; a quantity that is not fitted has no panel. The mark at a line's end says how the iteration ended; one that
    runs away ends at the top.

    Args:
        curves: λ, and its table with the columns iteration, mean_residual, variance_residual.
        dataset: its name.
        tolerance: at which the iteration ends.
        max_iterations: after which it ends unconverged.

    Raises:
        FigureError: there is no curve, no iteration at all, or a column is missing.
    """
    for _, rows in curves:
        require_columns(rows, RESIDUAL_COLUMNS, "residuals of a fit")
    quantities = [
        (column, label)
        for column, label in (
            ("mean_residual", r"$\max_i\ \|δμ_i\|_2$"),
            ("variance_residual", r"$\max_i\ \|δv_i\|_2$"),
        )
        if any((rows[column] > 0).any() for _, rows in curves)
    ]
    if not quantities:
        raise FigureError("expected residuals of at least one iteration, received none")
    curves = sorted(curves, key=lambda curve: curve[0])
    ends = [_ending(rows, tolerance, max_iterations) for _, rows in curves]
    colours = _COLOURS(np.linspace(0.15, 1.0, len(curves)))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 1.5 * len(quantities) + 0.75), layout="constrained")
        grid = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (column, label) in zip(grid, quantities, strict=True):
            bottom, top = _residual_limits([rows[column] for _, rows in curves], ends, tolerance)
            for (_, rows), colour, end in zip(curves, colours, ends, strict=True):
                positive = rows[rows[column] > 0]
                if positive.empty:
                    continue
                axes.plot(positive["iteration"], positive[column], color=colour, linewidth=1.0)
                beyond = positive[positive[column] > top]
                last = beyond.iloc[:1] if len(beyond) else positive.iloc[-1:]
                axes.plot(
                    last["iteration"],
                    last[column].clip(upper=top),
                    color=colour,
                    clip_on=False,
                    zorder=5,
                    **_end_style(end),
                )
            axes.axhline(tolerance, color="0.4", linestyle="--", linewidth=0.8)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_ylim(bottom, top)
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(LogLocator(numticks=6))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.grid(color="0.92", linewidth=0.5)
            axes.set_ylabel(label)
        grid[0].set_title(dataset, loc="left")
        grid[-1].set_xlabel("Iteration")
        figure.align_ylabels()
        lines: list[Line2D] = [Line2D([], [], color=colour) for colour in colours]
        labels = [f"λ = {weight_label(weight)}" for weight, _ in curves]
        lines.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8))
        labels.append(f"tolerance {tolerance:g}")
        for end in (name for name in _ENDS if name in ends):
            lines.append(Line2D([], [], linestyle="none", color="0.6", **_end_style(end)))
            labels.append(_ENDS[end][1].format(max_iterations))
        figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=6.5)
    return figure


def convergence_map(table: pd.DataFrame) -> Figure:
    """Iterations to convergence by λ, update, scale π, and what is fitted; or why there is none.

    A colour and a number stand for the iterations; a hatched cell did not converge in those allowed; a grey cell
    diverged, and its letter says what was lost.

    Args:
        table: what :func:`nfpi.analysis.convergence_table` yields, as a frame.

    Raises:
        FigureError: the table is empty or lacks a column.
    """
    require_columns(table, CONVERGENCE_COLUMNS, "a map of convergence")
    if table.empty:
        raise FigureError("expected at least one row, received an empty table")
    weights = sorted(table["lambda"].unique())
    groups = [(name, table[table["fitted"] == name]) for name in _FITTED if (table["fitted"] == name).any()]
    kinds = [list(dict.fromkeys(zip(rows["update"], rows["scale"], strict=True))) for _, rows in groups]
    norm = LogNorm(1, 1000)
    with matplotlib.rc_context(STYLE):
        height = 0.17 * sum(map(len, kinds)) + 0.2 * len(groups) + 1.35
        figure = Figure(figsize=(COLUMN_WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.02, w_pad=0.02))
        grid = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[len(k) for k in kinds])[:, 0]
        for axes, (name, rows), kind in zip(grid, groups, kinds, strict=True):
            for _, row in rows.iterrows():
                place = (weights.index(row["lambda"]), kind.index((row["update"], row["scale"])))
                _draw_cell(axes, place, row, norm)
            axes.set_xlim(-0.5, len(weights) - 0.5)
            axes.set_ylim(len(kind) - 0.5, -0.5)
            axes.set_yticks(range(len(kind)), [f"{update}, {scale} π" for update, scale in kind])
            axes.set_title(f"{_FITTED[name]}", loc="left", fontsize=7, pad=2)
            axes.tick_params(length=0, labelsize=6)
            axes.spines[:].set_visible(False)
        rotation = 90 if len(weights) > 6 else 0
        grid[-1].set_xticks(range(len(weights)), [weight_label(weight) for weight in weights], rotation=rotation)
        grid[-1].set_xlabel("Weight λ of the repulsion", fontsize=7)
        first = table.iloc[0]
        figure.suptitle(f"{first['dataset']}, α = {first['alpha']:g}", x=0.01, ha="left", fontsize=8)
        scale = matplotlib.cm.ScalarMappable(norm, _COLOURS)
        bar = figure.colorbar(scale, ax=list(grid), location="bottom", aspect=40, pad=0.02, fraction=0.05)
        bar.set_label("Iterations to convergence", fontsize=7)
        bar.ax.tick_params(labelsize=6)
        bar.ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        _add_codes(figure, table)
    return figure


def _ending(rows: pd.DataFrame, tolerance: float, max_iterations: int) -> str:
    """Residuals are written up to the end: within the tolerance, at the last iteration, or where it diverged."""
    if len(rows) and rows[["mean_residual", "variance_residual"]].iloc[-1].max() <= tolerance:
        return "converged"
    return "not_converged" if len(rows) >= max_iterations else "diverged"


def _residual_limits(values: list[pd.Series], ends: list[str], tolerance: float) -> tuple[float, float]:
    """Where the axis of a residual begins and ends; what runs away leaves it."""
    kept = pd.concat(
        [series.iloc[:1] if end == "diverged" else series for series, end in zip(values, ends, strict=True)]
    )
    kept = kept[np.isfinite(kept) & (kept > 0)]
    return 0.5 * min(kept.min(), tolerance), 5 * max(kept.max(), tolerance)


def _end_style(end: str) -> dict[str, Any]:
    return {"marker": _ENDS[end][0], "markersize": 4.5, "markeredgecolor": "black", "markeredgewidth": 0.4}


def _cell_style(outcome: str) -> dict[str, Any]:
    if outcome == "diverged":
        return {"facecolor": "0.85", "edgecolor": "white"}
    return {"facecolor": "white", "edgecolor": "0.5", "hatch": "//////"}


def _draw_cell(axes: Axes, place: tuple[int, int], row: pd.Series, norm: LogNorm) -> None:
    column, line = place
    corner = (column - 0.5, line - 0.5)
    if row["outcome"] != "converged":
        axes.add_patch(Rectangle(corner, 1, 1, linewidth=0.5, **_cell_style(row["outcome"])))
        text, colour = _code(row["quantity"])[0] if row["outcome"] == "diverged" else "", "black"
    else:
        shade = _COLOURS(norm(row["iterations"]))
        axes.add_patch(Rectangle(corner, 1, 1, linewidth=0.5, facecolor=shade, edgecolor="white"))
        luminance = np.dot(shade[:3], (0.299, 0.587, 0.114))
        text, colour = f"{row['iterations']:.0f}", "black" if luminance > 0.5 else "white"
    axes.text(column, line, text, ha="center", va="center_baseline", fontsize=6, color=colour)


def _code(quantity: str) -> tuple[str, str]:
    """Letter and meaning of what was lost."""
    return _CODES.get(quantity, (quantity[:1], quantity))


def _add_codes(figure: Figure, table: pd.DataFrame) -> None:
    """What grey and hatched cells are, where there are any."""
    handles: list[Any] = []
    labels = []
    codes = dict(_code(quantity) for quantity in table.loc[table["outcome"] == "diverged", "quantity"].unique())
    for letter, meaning in codes.items():
        handles.append((Patch(**_cell_style("diverged")), Line2D([], [], marker=f"${letter}$", **_LETTER)))
        labels.append(f"diverged: {meaning}")
    unfinished = table.loc[table["outcome"] == "not_converged", "iterations"]
    if len(unfinished):
        handles.append(Patch(linewidth=0.5, **_cell_style("not_converged")))
        labels.append(f"not in {unfinished.max():.0f} iterations")
    if handles:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=6.5, handlelength=1.5
        )


_LETTER: dict[str, Any] = {
    "linestyle": "none",
    "markersize": 4,
    "color": "black",
    "markeredgewidth": 0.0,
}
