"""Figures, sized for one column of a paper and readable by the colour-blind.

They are drawn on :class:`matplotlib.figure.Figure` itself: no pyplot, no display, no shared state.
"""

from __future__ import annotations

import io
import math
import os
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from nfpi.files import write_atomically
from nfpi.tables import weight_parts

COLUMN_WIDTH = 3.4
"""Width of a figure, inches."""

PANEL_HEIGHT = 1.9
"""Height of one panel, inches."""

LEGEND_HEIGHT = 0.4
"""Height set aside for the legend, inches."""

RESOLUTION = 300
"""Pixels an inch in PNG files."""

OKABE_ITO = {"blue": "#0072B2", "vermillion": "#D55E00"}
"""Colours of the palette by Okabe and Ito (2008) in use here."""

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
    "pdf.fonttype": 42,  # embedded as TrueType: text stays text
}

_SERIES = (("nf_acc", "NF-Acc", "blue", "o"), ("cnn_acc", "CNN-Acc", "vermillion", "s"))
"""Metric, label, colour, marker."""

_DIVERGED, _PARTLY_DIVERGED = "diverged", "diverged for some seeds"


class FigureError(ValueError):
    """Nothing to draw, or a column is missing; the message is one line."""


def accuracy_against_weight(table: pd.DataFrame) -> Figure:
    """NF-Acc and CNN-Acc (%) against λ, a panel for each data set (and prior, where a data set has several).

    λ is on a logarithmic axis with a place for 0 left of a break. Error bars are one standard deviation over
    seeds, where there are two seeds or more. A cross on the axis marks a λ whose fit diverged, an empty
    one where only some seeds did.

    Args:
        table: what :func:`nfpi.tables.accuracy_table` returns.

    Raises:
        FigureError: the table has no row or lacks a column.
    """
    needed = ("dataset", "prior", "lambda", "nf_acc", "nf_acc_std", "cnn_acc", "cnn_acc_std", "status")
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise FigureError(f"expected an accuracy table, column {missing[0]} is missing")
    if table.empty:
        raise FigureError("expected at least one row, received an empty table")
    panels = list(table.groupby(["dataset", "prior"], sort=False))
    names = [dataset for (dataset, _), _ in panels]
    with_spread = bool(table[["nf_acc_std", "cnn_acc_std"]].notna().any(axis=None))
    with matplotlib.rc_context(STYLE):
        height = PANEL_HEIGHT * len(panels) + LEGEND_HEIGHT
        figure = Figure(figsize=(COLUMN_WIDTH, height), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, ((dataset, prior), rows) in zip(grid, panels, strict=True):
            _draw_panel(axes, rows.sort_values("lambda"))
            axes.set_title(f"{dataset}, {prior}" if names.count(dataset) > 1 else dataset, loc="left")
            axes.set_ylabel("Accuracy (%)")
        grid[-1].set_xlabel("Weight λ of the repulsion")
        figure.align_ylabels()
        _add_legend(figure, grid, "Mean ± standard deviation over seeds" if with_spread else None)
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


def _draw_panel(axes: Axes, rows: pd.DataFrame) -> None:
    """One data set; `rows` ascend in λ."""
    weights = rows["lambda"].to_numpy(dtype="float64")
    _scale_weights(axes, weights)
    for metric, label, colour, marker in _SERIES:
        means = rows[metric].to_numpy(dtype="float64")
        stds = rows[f"{metric}_std"].to_numpy(dtype="float64")
        # λ = 0 is another method (nothing is fitted), so no line leads over the break to it.
        for part in (weights == 0, weights > 0):
            if np.isfinite(means[part]).any():  # unknown means stay in: the line must not lead over them
                axes.errorbar(
                    weights[part],
                    means[part],
                    yerr=stds[part] if np.isfinite(stds[part]).any() else None,
                    label=label,
                    color=OKABE_ITO[colour],
                    marker=marker,
                    markersize=3.5,
                    linewidth=1.0,
                    elinewidth=0.8,
                    capsize=2.0,
                )
    if rows[["nf_acc", "cnn_acc"]].notna().any(axis=None):
        axes.margins(y=0.1)
        axes.autoscale_view(scalex=False)
    else:
        axes.set_ylim(0, 100)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    _mark_diverged(axes, rows)


def _mark_diverged(axes: Axes, rows: pd.DataFrame) -> None:
    """Crosses on the axis, filled where no seed is left."""
    diverged = rows["status"].str.startswith("diverged")
    partly = diverged & rows["nf_acc"].notna()
    for which, fill, label in ((diverged & ~partly, "black", _DIVERGED), (partly, "white", _PARTLY_DIVERGED)):
        if which.any():
            axes.plot(
                rows.loc[which, "lambda"],
                np.zeros(int(which.sum())),
                label=label,
                linestyle="none",
                marker="X",
                markersize=6,
                markeredgewidth=0.7,
                markeredgecolor="black",
                markerfacecolor=fill,
                clip_on=False,
                zorder=5,
                transform=axes.get_xaxis_transform(),
            )


def _scale_weights(axes: Axes, weights: np.ndarray) -> None:
    """A logarithmic axis for λ > 0 and, where λ = 0 is among them, a place for it left of the decades."""
    positive = weights[weights > 0]
    if not positive.size:
        axes.set_xlim(-1, 1)
        axes.set_xticks([0.0], ["0"])
        return
    low, high = float(positive.min()), float(positive.max())
    margin = max((high / low) ** 0.06, 1.25)
    start = low / margin
    if (weights == 0).any():
        # Linear below `start`, the wider the more decades there are: 0 always stands apart.
        axes.set_xscale("symlog", linthresh=start, linscale=0.6 + 0.15 * math.log10(high / low))
        axes.set_xlim(-0.25 * start, high * margin)
        _break_axis(axes, 0.55 * start)
    else:
        axes.set_xscale("log")
        axes.set_xlim(start, high * margin)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [decade for power in powers if low <= (decade := float(f"1e{power}")) <= high]
    major = decades if len(decades) > 1 else sorted(set(positive.tolist()))
    minor = [float(f"{digit}e{power}") for power in powers for digit in range(2, 10)]
    axes.xaxis.set_major_locator(FixedLocator([0.0, *major] if (weights == 0).any() else major))
    axes.xaxis.set_minor_locator(FixedLocator([tick for tick in minor if low <= tick <= high]))
    axes.xaxis.set_major_formatter(FuncFormatter(_weight_label))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _break_axis(axes: Axes, weight: float) -> None:
    """Two slanted strokes on the axis at `weight`: it is not to scale there."""
    common: dict[str, Any] = {"linestyle": "none", "clip_on": False}
    on_axis = axes.get_xaxis_transform()
    axes.plot(weight, 0, marker="s", markersize=3, color="white", zorder=4, transform=on_axis, **common)
    for points in (-1.5, 1.5):
        axes.plot(
            weight,
            0,
            marker=[(-0.4, -1), (0.4, 1)],
            markersize=7,
            markeredgewidth=0.6,
            markeredgecolor="black",
            zorder=5,
            transform=on_axis + ScaledTranslation(points / 72, 0, axes.figure.dpi_scale_trans),
            **common,
        )


def _weight_label(weight: float, _position: int | None = None) -> str:
    """λ as mathematics: 0, 500, 10³, 3·10⁴."""
    mantissa, exponent = weight_parts(weight)
    if exponent == 0:
        return f"${mantissa}$"
    return rf"$10^{{{exponent}}}$" if mantissa == "1" else rf"${mantissa}\cdot10^{{{exponent}}}$"


def _add_legend(figure: Figure, grid: np.ndarray, title: str | None) -> None:
    """One legend for all panels, above them; a label stands once."""
    entries: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries[label] = handle  # the last one: that of λ > 0, with its line
    order = [label for _, label, *_ in _SERIES] + [_DIVERGED, _PARTLY_DIVERGED]
    labels = sorted(entries, key=order.index)
    if labels:
        figure.legend(
            [entries[label] for label in labels],
            labels,
            title=title,
            loc="outside upper center",
            ncols=3 if len(labels) == 3 else 2,
            frameon=False,
        )
