"""NF-Acc against bits/dim."""

from __future__ import annotations

import math

import pandas as pd

from nfpi.figures import FigureInputs, draw_figure
from nfpi.figures.frontier import COLUMNS, draw_frontier
from nfpi.results import write_csv

NAN = math.nan
TABLE = pd.DataFrame(
    [
        ("as trained", "digits", "mef", "fpi", 1e4, 95, 5.5, NAN),
        ("as trained", "digits", "mef", "fpi", 0, 90, 5.0, NAN),
        ("as trained", "digits", "mef", "fpi", 1e5, 93, 7.0, NAN),
        ("refitted", "digits", "mef", "fpi+moments", 0, 92, 4.9, NAN),
        ("refitted", "digits", "mef", "fpi+moments", 1e4, 96, 5.2, NAN),
        ("diverged", "digits", "mef", "nfgd", 1e4, NAN, NAN, NAN),
        ("pixels", "digits", None, None, NAN, NAN, 6.0, 97),
    ],
    columns=[*COLUMNS, "nf_acc", "bits_per_dim", "top1"],
)


def test_three_weights_are_joined_in_their_order_and_refits_are_hollow():
    (axes,) = draw_frontier(TABLE).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert lines.keys() == {"as trained", "refitted", "pixels"}
    trained, refitted, level = lines.values()
    assert trained.get_xydata().tolist() == [[5.0, 90], [5.5, 95], [7.0, 93]]
    assert refitted.get_xydata().tolist() == [[4.9, 92], [5.2, 96]]
    assert (trained.get_linestyle(), refitted.get_linestyle()) == ("-", "None")
    assert refitted.get_markerfacecolor() == "white" != trained.get_markerfacecolor()
    assert trained.get_color() == refitted.get_color()
    assert list(level.get_ydata()) == [97, 97]


def test_flows_and_data_sets_are_told_apart():
    other = TABLE[TABLE["row"] == "as trained"]
    frame = pd.concat([TABLE, other.assign(flow="glow", row="Glow"), other.assign(dataset="cifar10")])
    (axes,) = draw_frontier(frame).axes
    joined = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert len(joined) == len({line.get_color() for line in joined}) == 3
    assert all(len(line.get_xdata()) == 3 for line in joined[:3])


def test_a_legend_of_long_labels_is_not_cut():
    label = "means by gradient, Σ = I, γ = 10, refitted"
    figure = draw_frontier(TABLE.assign(row=TABLE["row"] + " " + label))
    figure.canvas.draw()
    (legend,), whole = figure.legends, figure.bbox
    extent = legend.get_window_extent()
    assert whole.x0 <= extent.x0 < extent.x1 <= whole.x1


def test_a_table_without_both_numbers_is_drawn_as_a_notice(tmp_path):
    for rows, has_axes in (
        (TABLE, True),
        (TABLE.drop(columns="top1"), True),
        (TABLE[TABLE["row"] == "pixels"], False),
        (TABLE.drop(columns="bits_per_dim"), False),
    ):
        write_csv(rows, tmp_path / "table.csv")
        picture = draw_figure("frontier", {}, FigureInputs({"table": [tmp_path / "table.csv"]})).pictures["frontier"]
        assert bool(picture.axes) == has_axes
