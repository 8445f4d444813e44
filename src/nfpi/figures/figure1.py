"""Figure 1: images in the plane, and their classes' Gaussians before and after the fit."""

from __future__ import annotations

from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nfpi.figures.style import COLUMN_WIDTH, STYLE, FigureError, class_style, require_columns, weight_label

EMBEDDING_COLUMNS = {
    "dataset": "str",
    "variant": "str",
    "panel": "str",
    "lambda": "float64",
    "outcome": "str",
    "iterations": "Int64",
    "quantity": "str",
    "class": "str",
    "x": "float64",
    "y": "float64",
}
"""Columns of an embedding, with their types."""

_PANELS = ("images", "data", "small", "large")
_IN_LEGEND = 20
"""More classes than these have no legend."""

_FARTHEST = 0.4
"""Axes reach this many times the extent of the images beyond it, at most."""


def class_gaussians(table: pd.DataFrame, variant: Literal["diagonal", "full"]) -> Figure:
    """Four panels on the same axes: images, samples of their classes' Gaussians, and of those fitted with two λ.

    A small point is an image or a sample, a large one with a rim the mean of a class's points.

    Args:
        table: what :func:`nfpi.analysis.embedding_table` returns.
        variant: whose Gaussians are shown, with variances or with full covariances.

    Raises:
        FigureError: the table lacks a column or a panel.
    """
    require_columns(table, EMBEDDING_COLUMNS, "an embedding")
    shown = table[table["variant"].isin(["both", variant])]
    panels = [shown[shown["panel"] == name] for name in _PANELS]
    for name, rows in zip(_PANELS, panels, strict=True):
        if rows.empty:
            raise FigureError(
                f"expected the panels {', '.join(_PANELS)} of variant {variant}, received none with {name}"
            )
    classes = panels[0]["class"].unique().tolist()
    x_limits, y_limits = _limits(shown, pd.concat(panels[:2]))
    ratio = float(np.diff(y_limits)[0] / np.diff(x_limits)[0])
    columns = max(1, min(len(classes), int(COLUMN_WIDTH / (0.17 + 0.05 * max(map(len, classes))))))
    legend_rows = -(-len(classes) // columns) if len(classes) <= _IN_LEGEND else 0
    with matplotlib.rc_context(STYLE):
        height = 2 * (1.38 * ratio + 0.2) + 0.3 + (0.16 + 0.12 * legend_rows if legend_rows else 0)
        figure = Figure(
            figsize=(COLUMN_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, compress=True)
        )
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for letter, name, axes, rows in zip("abcd", _PANELS, grid.flat, panels, strict=True):
            axes.set_xlim(*x_limits)
            axes.set_ylim(*y_limits)
            axes.set_aspect("equal")
            _draw(axes, rows, classes)
            axes.set_title(f"({letter}) {_title(name, rows.iloc[0], len(rows))}", loc="left", fontsize=6.5, pad=3)
            axes.label_outer()
        grid[0, 0].xaxis.set_major_locator(MaxNLocator(4))
        grid[0, 0].yaxis.set_major_locator(MaxNLocator(4))
        for axes in grid[1]:
            axes.set_xlabel("t-SNE 1", fontsize=7, labelpad=1)
        for axes in grid[:, 0]:
            axes.set_ylabel("t-SNE 2", fontsize=7, labelpad=1)
        if legend_rows:
            _add_legend(figure, classes, columns, shown["dataset"].iloc[0])
    return figure


def _limits(shown: pd.DataFrame, reference: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Limits in x and y that hold all points but those far off the reference's, with a ratio a panel can have."""
    limits = []
    for axis in ("x", "y"):
        low, high = reference[axis].min(), reference[axis].max()
        reach = _FARTHEST * (high - low)
        low, high = max(shown[axis].min(), low - reach), min(shown[axis].max(), high + reach)
        margin = 0.03 * (high - low) or 1.0
        limits.append((low - margin, high + margin))
    (left, right), (bottom, top) = limits
    short_by = [(top - bottom) / 1.2 - (right - left), 0.6 * (right - left) - (top - bottom)]
    more_x, more_y = (max(0.0, missing) / 2 for missing in short_by)
    return (left - more_x, right + more_x), (bottom - more_y, top + more_y)


def _draw(axes: Axes, rows: pd.DataFrame, classes: list[str]) -> None:
    """Points in mixed order, so that no class lies on top; then the means."""
    points = rows[rows["x"].notna()]
    axes.tick_params(labelsize=6, length=2, pad=2)
    if points.empty:
        row = rows.iloc[0]
        text = f"diverged: {row['quantity']}\nof class {row['class']}\nat iteration {row['iterations']:.0f}"
        axes.text(
            *(0.5, 0.5, text),
            ha="center",
            va="center",
            fontsize=7,
            color="0.3",
            transform=axes.transAxes,
        )
        return
    mixed = points.iloc[np.random.default_rng(0).permutation(len(points))]
    colours = [class_style(classes.index(name))[0] for name in mixed["class"]]
    axes.scatter(mixed["x"], mixed["y"], s=1.2, c=colours, linewidths=0, rasterized=True, zorder=2)
    if len(classes) <= _IN_LEGEND:
        for index, name in enumerate(classes):
            mean = points.loc[points["class"] == name, ["x", "y"]].mean()
            axes.plot(*mean, **_mean_style(index), zorder=3)
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    outside = int((~(points["x"].between(left, right) & points["y"].between(bottom, top))).sum())
    if outside:
        axes.text(
            *(0.98, 0.02, f"{outside} of {len(points)} samples outside"),
            ha="right",
            va="bottom",
            fontsize=5.5,
            color="0.3",
            transform=axes.transAxes,
        )


def _mean_style(index: int) -> dict[str, Any]:
    colour, marker = class_style(index)
    return {
        "marker": marker,
        "markersize": 3.5,
        "markerfacecolor": colour,
        "markeredgecolor": "black",
        "markeredgewidth": 0.4,
        "linestyle": "none",
    }


def _title(name: str, row: pd.Series, points: int) -> str:
    """What a panel shows."""
    if name == "images":
        return f"{points} images"
    if name == "data":
        return "Gaussians, $λ = 0$"
    weight = f"$λ =$ {weight_label(row['lambda'])}"
    if row["outcome"] == "diverged":
        return f"{weight}, diverged"
    return f"{weight}, {'' if row['outcome'] == 'converged' else '> '}{row['iterations']:.0f} iterations"


def _add_legend(figure: Figure, classes: list[str], columns: int, title: str) -> None:
    figure.legend(
        [Line2D([], [], **_mean_style(index)) for index in range(len(classes))],
        classes,
        loc="outside lower center",
        title=title,
        ncols=columns,
        frameon=False,
        handletextpad=0.1,
        columnspacing=0.9,
        labelspacing=0.3,
        borderpad=0.1,
        fontsize=6.5,
    )
