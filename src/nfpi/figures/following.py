"""Figure of the gain of the repulsion in NF-Acc and CNN-Acc against the mismatch of flow and prior."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from nfpi.config.base import Name
from nfpi.config.metrics import MISMATCH_LIMIT, metric
from nfpi.figures.drawn import Drawn, FigureInputs, TableFigure, register_figure
from nfpi.figures.style import CLASS_MARKERS, LEGEND_HEIGHT, OKABE_ITO, PANEL_HEIGHT, escape_math, new_figure, notice
from nfpi.runs import split_refitted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLOW = ["dataset", "flow", "prior"]
COLUMNS = dict.fromkeys((*_FLOW, "classifier"), "str") | {"lambda": "float64"}
"""Required columns of a table, and their types; it may lack the mismatch and the accuracies."""
_COLOURS = {"nf_acc": OKABE_ITO["blue"], "cnn_acc": OKABE_ITO["vermillion"]}
"""Metrics shown if the table has them, with their colours."""
_TICKS = (-0.5, -0.2, 0, 0.2, 0.5, 1, 2, 5, 10)


class FollowingFigure(TableFigure):
    """Gain in NF-Acc and CNN-Acc over λ = 0 against the mismatch, from a table; drawn whenever this table is made."""

    title = "gain over λ = 0 against the mismatch of flow and prior"
    caption = (
        "NF-Acc and CNN-Acc less those of λ = 0 of the same data set and flow, in percentage points, against the "
        "mismatch of the trained flow: bits/dim under its prior less those under the class means and variances of its "
        "training latents. One point for each row, means over seeds. Open markers: the Gaussians are estimated again "
        "after the training, those of λ = 0 too. Right of the dotted line, a flow does not follow its prior."
    )

    table: Name = "table9"


@register_figure("following", FollowingFigure)
def draw(settings: FollowingFigure, inputs: FigureInputs) -> Drawn:
    """Draw one or several tables; if no row can be compared with λ = 0, draw a picture that says so."""
    import pandas as pd

    from nfpi.results.recorded.csv_files import read_csv

    tables = [read_csv(path, COLUMNS, [*_COLOURS, "mismatch"]) for path in inputs.files["table"]]
    gains = pd.concat(map(compute_gains, tables))
    if gains.empty:
        return Drawn({"following": notice(f"{settings.table}: no row to compare with λ = 0")})
    return Drawn({"following": draw_gains(gains)})


def compute_gains(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with λ > 0: their accuracies less those of λ = 0, and the mismatch before a refit.

    They are compared with λ = 0 of the same data set, flow, prior, refit and classifier.

    Args:
        table: columns :data:`COLUMNS`, and of the accuracies at least one.

    Returns:
        A frame with a further column `refit`, which is empty for rows as trained.
    """
    import pandas as pd

    names, identity = list(_COLOURS), [*_FLOW, "refit", "classifier"]
    prior, refit = zip(*map(split_refitted, table["prior"]), strict=True)
    table = table.assign(prior=prior, refit=[name or "" for name in refit]).reindex(
        columns=["lambda", "mismatch", *identity, *names]
    )
    zero = table[table["lambda"] == 0].drop_duplicates(identity).set_index(identity)[names]
    rows = table[table["lambda"] > 0].set_index(identity)
    rows[names] -= zero.reindex(rows.index)
    rows = rows.reset_index()
    training = [*_FLOW, "lambda"]
    trained = rows[rows["refit"] == ""].drop_duplicates(training).set_index(training)["mismatch"]
    rows["mismatch"] = trained.reindex(pd.MultiIndex.from_frame(rows[training])).to_numpy()
    return rows.dropna(subset="mismatch").dropna(subset=names, how="all")


def draw_gains(gains: pd.DataFrame) -> Figure:
    """Draw the result of :func:`compute_gains`: a colour for each metric, a marker for each data set and flow."""
    has_several_flows = gains.groupby("dataset")["flow"].transform("nunique") > 1
    flows = gains["dataset"].mask(has_several_flows, gains["dataset"] + ", " + gains["flow"])
    markers = dict(zip(flows.unique(), itertools.cycle(CLASS_MARKERS), strict=False))
    with new_figure(1.6 * PANEL_HEIGHT + LEGEND_HEIGHT) as figure:
        axes = figure.subplots()
        for (label, refit), rows in gains.groupby([flows, "refit"]):
            for name, colour in _COLOURS.items():
                style = {"marker": markers[label], "markerfacecolor": "white" if refit else colour}
                axes.plot(rows["mismatch"], rows[name], color=colour, linestyle="none", markersize=4.5, **style)
        axes.axhline(0, color="black", linewidth=0.6, zorder=1)
        axes.axvline(MISMATCH_LIMIT, color="0.4", linestyle=":", linewidth=1.0, zorder=1)
        _scale_mismatch(axes)
        axes.set_ylabel("Accuracy less that of λ = 0 (points)")
        axes.grid(axis="y")
        figure.legend(handles=_make_legend(markers), loc="outside upper center", ncols=2)
    return figure


def _scale_mismatch(axes: Axes) -> None:
    """Set an axis that is linear up to the limit, since a mismatch may be negative, and logarithmic beyond."""
    axes.set_xscale("symlog", linthresh=MISMATCH_LIMIT, linscale=0.5)
    axes.margins(x=0.08)
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in _TICKS if low <= tick <= high], minor=False)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(low, high)
    axes.set_xlabel("Mismatch (bits/dim)")


def _make_legend(markers: dict[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    def make_mark(label: str, marker: str, filling: str) -> Line2D:
        return Line2D(
            [], [], color="0.3", marker=marker, markerfacecolor=filling, linestyle="none", markersize=4.5, label=label
        )

    lines = [Line2D([], [], color=colour, linewidth=3, label=metric(name).label) for name, colour in _COLOURS.items()]
    marks = [make_mark(escape_math(label), marker, "0.3") for label, marker in markers.items()]
    return [*lines, *marks, make_mark("refitted", "o", "white")]
