"""Figure of NF-Acc against bits/dim: what a way to obtain the Gaussians gains in accuracy, and costs in density."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

from nfpi.config.base import Name
from nfpi.config.metrics import metric
from nfpi.figures.drawn import Drawn, FigureInputs, TableFigure, register_figure
from nfpi.figures.style import CLASS_COLOURS, LEGEND_HEIGHT, PANEL_HEIGHT, escape_math, new_figure, notice
from nfpi.results.numbers import typeset_weight
from nfpi.runs import split_refitted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_WAY = ["dataset", "flow", "prior"]
_NUMBERS = ["nf_acc", "bits_per_dim", "top1"]
COLUMNS = dict.fromkeys(("row", *_WAY), "str") | {"lambda": "float64"}
"""Required columns of the table, and their types; of the metrics, it may lack some."""
_STRENGTHS = 3
"""smallest number of λ that are joined by a line"""
_DASHES = (":", "--", "-.")
"""lines of the accuracies without a flow"""
_LONG_LABEL = 34
"""characters of the legend's longest label up to which it has two columns"""


class FrontierFigure(TableFigure):
    """NF-Acc against bits/dim of the rows of a table; drawn whenever this table is made."""

    title = "accuracy against density"
    caption = (
        "NF-Acc against bits/dim of the test images; one point for each row, means over seeds; λ beside it. Left and "
        "up is better. Open markers: the Gaussians are estimated again after the training. Rows of at least three λ "
        "are joined in the order of λ. Grey lines: accuracy without a flow."
    )

    table: Name = "table9"


@register_figure("frontier", FrontierFigure)
def draw(settings: FrontierFigure, inputs: FigureInputs) -> Drawn:
    """Draw the table; if no row has both numbers, draw a picture that says so."""
    from nfpi.results.recorded.csv_files import read_csv

    table = read_csv(inputs.file("table"), COLUMNS, _NUMBERS)
    table = table.reindex(columns=[*COLUMNS, *_NUMBERS])
    if table[["nf_acc", "bits_per_dim", "prior"]].dropna().empty:
        return Drawn({"frontier": notice(f"{settings.table}: no row with NF-Acc and bits/dim")})
    return Drawn({"frontier": draw_frontier(table)})


def draw_frontier(table: pd.DataFrame) -> Figure:
    """Draw a colour for each data set, flow and prior; a refit has that of the flow as trained.

    Args:
        table: columns :data:`COLUMNS`.
    """
    flows = table.dropna(subset=["nf_acc", "bits_per_dim", "prior"])
    prior, refit = zip(*map(split_refitted, flows["prior"]), strict=True)
    flows = flows.assign(prior=prior, refitted=[name is not None for name in refit])
    colours = flows.drop_duplicates(_WAY)[_WAY].itertuples(index=False, name=None)
    colour_of = dict(zip(colours, cycle(CLASS_COLOURS), strict=False))
    with new_figure(1.7 * PANEL_HEIGHT + LEGEND_HEIGHT) as figure:
        axes = figure.subplots()
        for (*way, row, refitted), points in flows.groupby([*_WAY, "row", "refitted"], sort=False):
            points, colour = points.sort_values("lambda"), colour_of[tuple(way)]
            line = "-" if len(points) >= _STRENGTHS else "none"
            filling = "white" if refitted else colour
            axes.plot(
                points["bits_per_dim"],
                points["nf_acc"],
                label=escape_math(row),
                color=colour,
                linestyle=line,
                marker="o",
                markerfacecolor=filling,
                markersize=4.5,
            )
            for weight, bits, accuracy in points[["lambda", "bits_per_dim", "nf_acc"]].itertuples(index=False):
                if len(points) > 1:
                    text = typeset_weight(weight)
                    axes.annotate(
                        text, (bits, accuracy), (4, -3), textcoords="offset points", va="top", fontsize=6, color=colour
                    )
        levels = table.dropna(subset="top1")[["row", "top1"]].itertuples(index=False)
        for (row, accuracy), dashes in zip(levels, cycle(_DASHES)):
            axes.axhline(accuracy, label=escape_math(row), color="0.4", linestyle=dashes, linewidth=1.0, zorder=1)
        axes.set_xlabel(metric("bits_per_dim").label)
        axes.set_ylabel(f"{metric('nf_acc').label} (%)")
        axes.margins(x=0.08, y=0.08)
        columns = 1 if table["row"].str.len().max() > _LONG_LABEL else 2
        figure.legend(loc="outside upper center", ncols=columns, fontsize=6, columnspacing=1, handlelength=1.6)
    return figure
