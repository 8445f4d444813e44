"""The gain over λ = 0 against the mismatch."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from nfpi.config.metrics import MISMATCH_LIMIT
from nfpi.figures import FigureInputs, draw_figure
from nfpi.figures.following import COLUMNS, compute_gains, draw_gains
from nfpi.figures.style import OKABE_ITO
from nfpi.results import write_csv


def make_table(*rows: tuple[str, float, float, float, float], dataset: str = "digits") -> pd.DataFrame:
    """Make a table of rows of prior, λ, mismatch, NF-Acc and CNN-Acc."""
    common = {"dataset": dataset, "flow": "mef", "classifier": "resnet18"}
    names = ("prior", "lambda", "mismatch", "nf_acc", "cnn_acc")
    columns = COLUMNS | dict.fromkeys(("mismatch", "nf_acc", "cnn_acc"), "float64")
    return pd.DataFrame([common | dict(zip(names, row, strict=True)) for row in rows], columns=list(columns))


TABLE = make_table(
    ("fpi", 0, 0.05, 90, 80),
    ("fpi", 1e4, 0.1, 95, 84),
    ("fpi", 1e5, 1.5, 93, 70),
    ("fpi+moments", 0, 0.0, 92, 81),
    ("fpi+moments", 1e4, 0.0, 96, 85),
    ("fpi+moments", 1e5, 0.0, 97, 83),
)
OTHER = make_table(("fpi", 0, 0.05, 50, 40), ("fpi", 1e5, 0.7, 60, math.nan), dataset="cifar10")


def test_accuracies_are_compared_with_those_of_the_same_refit():
    gains = compute_gains(TABLE)
    assert gains[["refit", "lambda", "mismatch", "nf_acc", "cnn_acc"]].to_numpy().tolist() == [
        ["", 1e4, 0.1, 5, 4],
        ["", 1e5, 1.5, 3, -10],
        ["moments", 1e4, 0.1, 4, 4],  # at the mismatch of the flow before the refit
        ["moments", 1e5, 1.5, 5, 2],
    ]


def test_rows_without_a_mismatch_or_a_zero_are_left_out():
    rows = [("fpi", 0, 0.05, 90, 80), ("fpi", 1e4, math.nan, 95, 84), ("nfgd", 1e4, 1.0, 95, 84)]
    assert compute_gains(make_table(*rows, ("real", math.nan, math.nan, 1, 1))).empty
    assert compute_gains(TABLE.drop(columns="mismatch")).empty


def test_every_gain_is_a_marker():
    (axes,) = draw_gains(pd.concat([compute_gains(TABLE), compute_gains(OTHER)])).axes
    drawn = {
        (line.get_color(), line.get_marker(), line.get_markerfacecolor() == "white", *point)
        for line in axes.lines
        if line.get_marker() != "None"
        for point in line.get_xydata().tolist()
        if not math.isnan(point[1])
    }
    nf, cnn = OKABE_ITO["blue"], OKABE_ITO["vermillion"]
    assert drawn == {
        *((nf, "o", False, 0.1, 5), (nf, "o", False, 1.5, 3), (nf, "o", True, 0.1, 4), (nf, "o", True, 1.5, 5)),
        *((cnn, "o", False, 0.1, 4), (cnn, "o", False, 1.5, -10), (cnn, "o", True, 0.1, 4), (cnn, "o", True, 1.5, 2)),
        (nf, "s", False, 0.7, 10),
    }
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < 0.1 < 1.5 < right
    assert bottom < -10 < 10 < top
    (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert list(dotted.get_xdata()) == [MISMATCH_LIMIT] * 2


def test_flows_of_one_data_set_have_markers_of_their_own():
    longer = TABLE.assign(flow="mef_50", mismatch=TABLE["mismatch"] / 2)
    figure = draw_gains(pd.concat([compute_gains(TABLE), compute_gains(longer), compute_gains(OTHER)]))
    points = {marker: set() for marker in "os"}
    for line in figure.axes[0].lines:
        if line.get_marker() in points:
            points[line.get_marker()] |= set(line.get_xdata())
    assert points == {"o": {0.1, 1.5}, "s": {0.05, 0.75}}


@pytest.mark.parametrize("left_out", [[], ["cnn_acc"], ["nf_acc"]], ids=["both", "NF-Acc", "CNN-Acc"])
def test_tables_are_read_from_their_files(left_out, tmp_path):
    for name, frame in {"a": TABLE, "b": OTHER}.items():
        write_csv(frame.drop(columns=left_out), tmp_path / f"{name}.csv")
    inputs = FigureInputs({"table": [tmp_path / "a.csv", tmp_path / "b.csv"]})
    assert draw_figure("following", {}, inputs).pictures["following"].axes


def test_a_table_that_has_nothing_to_compare_is_drawn_as_a_notice(tmp_path):
    write_csv(TABLE[TABLE["lambda"] > 0], tmp_path / "a.csv")
    picture = draw_figure("following", {}, FigureInputs({"table": [tmp_path / "a.csv"]})).pictures["following"]
    assert picture.texts
    assert not picture.axes
