"""Figure of NF-Acc and CNN-Acc against λ, from a table of results."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from nfpi.config.base import Name
from nfpi.config.metrics import metric
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, TableFigure, register_figure
from nfpi.figures.style import (
    LEGEND_HEIGHT,
    OKABE_ITO,
    PANEL_HEIGHT,
    collect_legend,
    escape_math,
    format_weight_label,
    new_figure,
    notice,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = {"experiment": "int64", "row": "str", "dataset": "str", "prior": "str", "lambda": "float64", "status": "str"}
"""Required columns of the table besides its metrics, and their types."""

_SERIES: dict[str, dict[str, Any]] = {
    "nf_acc": {"color": OKABE_ITO["blue"], "marker": "o"},
    "cnn_acc": {"color": OKABE_ITO["vermillion"], "marker": "s"},
}
"""Metrics shown if the table has them, with their style."""

_DIVERGED, _PARTLY_DIVERGED = "diverged", "diverged for some seeds"


class AccuracyFigure(TableFigure):
    """NF-Acc and CNN-Acc against λ, from a table; drawn whenever this table is made."""

    title = "accuracy against λ"
    caption = "NF-Acc and CNN-Acc (%) of the test split against the weight λ of the repulsion."

    table: Name = "table2"

    def describe(self, config: Config) -> str:
        """Complete the caption with the table and the seeds."""
        seeds = f"seed{'s' * (len(config.seeds) > 1)} {', '.join(map(str, config.seeds))}"
        has_zero = any(0 in experiment.weights for experiment in config.tables[self.table].experiments)
        zero = " At λ = 0, left of the dotted line, the Gaussians are not fitted by the iteration." if has_zero else ""
        bars = " Bars: one standard deviation over seeds." if len(config.seeds) > 1 else ""
        return f"{self.caption}{zero}{bars} From {self.table}; {seeds}."


@register_figure("accuracy_against_weight", AccuracyFigure)
def draw(settings: AccuracyFigure, inputs: FigureInputs) -> Drawn:
    """Draw the accuracies of a table against λ; if it has none, or no row has a λ, draw a picture that says so."""
    from nfpi.results.recorded.csv_files import read_csv

    # users may choose any table, and other metrics for it
    table = read_csv(inputs.file("table"), COLUMNS, [column for name in _SERIES for column in (name, f"{name}_std")])
    series = _select_series(table.columns)
    if not series or table["lambda"].isna().all():
        labels = " nor ".join(metric(name).label for name in _SERIES)
        fault = "no row has a λ" if series else f"neither {labels}"
        return Drawn({"accuracy_against_weight": notice(f"{settings.table}: {fault}")})
    return Drawn({"accuracy_against_weight": draw_accuracy(table)})


def draw_accuracy(table: pd.DataFrame) -> Figure:
    """Draw NF-Acc and CNN-Acc (%) against λ, one panel per experiment that has λ.

    The axis of λ is logarithmic, with 0 left of a dotted line. Error bars are one standard deviation over seeds, if
    there are at least two. A filled cross on the axis marks a λ at which all seeds diverged, an open one
    a λ at which some did.

    Args:
        table: result of :func:`nfpi.results.tables.building.accuracy_table`; some row has a λ.
    """
    series = _select_series(table.columns)
    table = table[table["lambda"].notna()]
    panels = [rows for _, rows in table.groupby("experiment", sort=False)]
    with_spread = bool(table[[f"{name}_std" for name in series]].notna().any(axis=None))
    with new_figure(PANEL_HEIGHT * len(panels) + LEGEND_HEIGHT) as figure:
        grid = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
        for axes, title, rows in zip(grid, _compose_titles(panels), panels, strict=True):
            _draw_panel(axes, rows.sort_values("lambda"), series)
            axes.set_title(escape_math(title), loc="left")
            axes.set_ylabel("Accuracy (%)")
        grid[-1].set_xlabel("Weight λ of the repulsion")
        figure.align_ylabels()
        entries = collect_legend(grid)
        if entries:
            heading = "Mean ± standard deviation over seeds" if with_spread else None
            columns = 3 if len(entries) == 3 else 2
            order = [
                label
                for label in (*(metric(name).label for name in _SERIES), _DIVERGED, _PARTLY_DIVERGED)
                if label in entries
            ]
            handles = [entries[label] for label in order]
            figure.legend(handles, order, title=heading, loc="outside upper center", ncols=columns)
    return figure


def _select_series(columns: Iterable[str]) -> list[str]:
    """Return which metrics of a table with these columns are shown."""
    known = set(columns)
    return [name for name in _SERIES if name in known]


def _compose_titles(panels: list[pd.DataFrame]) -> list[str]:
    """Return the titles of the panels: the data set, with what distinguishes several panels of one data set."""
    titles, datasets = [], [rows["dataset"].iloc[0] for rows in panels]
    for rows, dataset in zip(panels, datasets, strict=True):
        first = rows.iloc[0]
        run = [first["row"]] if first["row"] else [first["prior"], first.get("flow"), first.get("classifier")]
        titles.append(", ".join(filter(None, [dataset, *run])) if datasets.count(dataset) > 1 else dataset)
    return titles


def _draw_panel(axes: Axes, rows: pd.DataFrame, series: list[str]) -> None:
    """Draw one experiment; `rows` are sorted by λ."""
    from matplotlib.ticker import MaxNLocator

    weights = rows["lambda"].to_numpy(dtype="float64")
    _scale_weights(axes, weights)
    for name in series:
        style = {"markersize": 3.5, "linewidth": 1.0, "elinewidth": 0.8, "capsize": 2.0, **_SERIES[name]}
        means = rows[name].to_numpy(dtype="float64")
        stds = rows[f"{name}_std"].to_numpy(dtype="float64")
        # No line leads to zero, since λ = 0 is another method (nothing is fitted).
        for part in (weights == 0, weights > 0):
            if np.isfinite(means[part]).any():  # unknown means stay in, so that they interrupt the line
                spread = stds[part] if np.isfinite(stds[part]).any() else None
                axes.errorbar(weights[part], means[part], spread, label=metric(name).label, **style)
    if rows[series].notna().any(axis=None):
        axes.margins(y=0.1)
        axes.autoscale_view(scalex=False)
    else:
        axes.set_ylim(0, 100)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="y")
    _mark_diverged(axes, rows)


def _mark_diverged(axes: Axes, rows: pd.DataFrame) -> None:
    """Mark λ with diverged seeds by crosses on the axis, open where only some seeds diverged."""
    diverged = rows["status"].str.contains("diverged")
    partly = rows["status"].str.match(r"(\d+) of (?!\1 )\d+ seeds diverged")
    for marked, fill, label in ((diverged & ~partly, "black", _DIVERGED), (partly, "white", _PARTLY_DIVERGED)):
        if marked.any():
            weights = rows.loc[marked, "lambda"]
            style: dict[str, Any] = {"markeredgecolor": "black", "markeredgewidth": 0.7, "clip_on": False, "zorder": 5}
            on_axis = axes.get_xaxis_transform()
            axes.plot(weights, 0 * weights, "X", label=label, markersize=6, color=fill, transform=on_axis, **style)


def _scale_weights(axes: Axes, weights: np.ndarray) -> None:
    """Set a logarithmic axis for λ > 0, with λ = 0, if present, left of the decades."""
    from matplotlib.ticker import FixedLocator, NullFormatter

    positive, has_zero = weights[weights > 0], (weights == 0).any()
    if not positive.size:
        axes.set(xlim=(-1, 1), xticks=[0.0], xticklabels=["0"])
        return
    low, high = float(positive.min()), float(positive.max())
    margin = max((high / low) ** 0.06, 1.25)
    start = low / margin
    if has_zero:
        # Linear below `start`, with a width that grows with the number of decades, so that 0 is always separate.
        axes.set_xscale("symlog", linthresh=start, linscale=0.6 + 0.15 * math.log10(high / low))
        axes.set_xlim(-0.25 * start, high * margin)
        axes.axvline(0.55 * start, color="0.6", linestyle=":", linewidth=0.8)
    else:
        axes.set_xscale("log")
        axes.set_xlim(start, high * margin)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in range(1, 10)]
    decades = [tick for tick in ticks[::9] if low <= tick <= high]
    major = decades if len(decades) > 1 else sorted(set(positive.tolist()))
    axes.xaxis.set_major_locator(FixedLocator([0.0, *major] if has_zero else major))
    axes.xaxis.set_minor_locator(FixedLocator([tick for tick in ticks if low <= tick <= high and tick not in decades]))
    axes.xaxis.set_major_formatter(format_weight_label)
    axes.xaxis.set_minor_formatter(NullFormatter())
