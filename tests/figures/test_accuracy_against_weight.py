import math

import numpy as np
import pandas as pd
import pytest

from nfpi.figures import Drawn, FigureInputs, save_drawn
from nfpi.figures.accuracy_against_weight import COLUMNS, AccuracyFigure, draw, draw_accuracy
from nfpi.results import write_csv

ACCURACIES = dict.fromkeys(("nf_acc", "nf_acc_std", "cnn_acc", "cnn_acc_std"), "float64")


def table(*rows: dict) -> pd.DataFrame:
    """An experiment a pair of data set and prior."""
    known = {"row": "", "dataset": "digits", "prior": "fpi", "flow": "mef", "classifier": "resnet18", "status": "ok"}
    columns = COLUMNS | ACCURACIES | {"flow": "str", "classifier": "str"}
    frame = pd.DataFrame([known | row for row in rows], columns=list(columns))
    frame["experiment"] = frame.groupby(["dataset", "prior", "flow", "classifier"], sort=False).ngroup()
    return frame.astype(columns)


def rows(weights, nf, cnn=None, std=math.nan, **changes) -> list[dict]:
    cnn = cnn if cnn is not None else [value - 5 for value in nf]
    return [
        {"lambda": weight, "nf_acc": a, "nf_acc_std": std, "cnn_acc": b, "cnn_acc_std": std, **changes}
        for weight, a, b in zip(weights, nf, cnn, strict=True)
    ]


DEMO = table(*rows([0, 1e3, 1e4, 3e4, 1e5], [94.4, 97.0, 98.6, 99.2, 99.0]))
PAPER = table(
    *rows([0, 1e4, 1e5, 1e6, 3e6], [77, 85, 91, 93, 94], std=0.5, dataset="cifar10"),
    {"dataset": "cifar10", "lambda": 1e7, "status": "3 of 3 seeds diverged"},
    *rows([0, 1e4], [39, 50], std=0.7, dataset="cifar100"),
    *rows([1e5], [62], std=0.7, dataset="cifar100", status="1 of 3 seeds diverged"),
)


def curve(axes, label: str) -> dict[float, float]:
    """Every point that is drawn for one label."""
    points = {}
    for container in axes.containers:
        if container.get_label() == label:
            points |= dict(zip(*(values.tolist() for values in container[0].get_data()), strict=True))
    return {weight: value for weight, value in points.items() if not math.isnan(value)}


def crosses(axes, label: str) -> list[float]:
    return [weight for line in axes.lines if line.get_label() == label for weight in line.get_xdata()]


def test_every_known_value_is_drawn_inside_the_axes():
    (axes,) = draw_accuracy(DEMO).axes
    assert curve(axes, "NF-Acc") == dict(zip(DEMO["lambda"], DEMO["nf_acc"], strict=True))
    assert curve(axes, "CNN-Acc") == dict(zip(DEMO["lambda"], DEMO["cnn_acc"], strict=True))
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < 0
    assert right > 1e5
    assert bottom < DEMO["cnn_acc"].min()
    assert top > DEMO["nf_acc"].max()


def test_equal_factors_are_equal_lengths_and_zero_has_its_place():
    (axes,) = draw_accuracy(DEMO).axes
    zero, *decades = axes.transData.transform([(weight, 95.0) for weight in (0, 1e3, 1e4, 1e5)])[:, 0]
    assert np.diff(decades)[0] == pytest.approx(np.diff(decades)[1])
    assert decades[0] - zero > 0.5 * np.diff(decades)[0]


def test_no_line_leads_to_zero_or_over_a_divergence():
    frame = table(
        *rows([0, 1e3], [90, 95]),
        {"lambda": 1e4, "status": "diverged: mean at iteration 2"},
        *rows([1e5], [96]),
    )
    (axes,) = draw_accuracy(frame).axes
    lines = [container[0].get_ydata() for container in axes.containers if container.get_label() == "NF-Acc"]
    assert lines[0].tolist() == [90]
    np.testing.assert_array_equal(lines[1], [95, math.nan, 96])


def test_error_bars_only_where_there_is_a_deviation():
    assert not any(container.has_yerr for container in draw_accuracy(DEMO).axes[0].containers)
    (axes, _) = draw_accuracy(PAPER).axes
    assert all(container.has_yerr for container in axes.containers)
    lengths = [np.diff(bar[:, 1])[0] for bar in axes.containers[1][2][0].get_segments() if len(bar)]
    np.testing.assert_allclose(lengths[:4], 2 * 0.5)


def test_a_panel_a_data_set_with_its_divergences():
    first, second = draw_accuracy(PAPER).axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["cifar10", "cifar100"]
    assert crosses(first, "diverged") == [1e7]
    assert crosses(first, "diverged for some seeds") == []
    assert crosses(second, "diverged") == []
    assert crosses(second, "diverged for some seeds") == [1e5]
    assert 1e7 not in curve(first, "NF-Acc")
    assert 1e5 in curve(second, "NF-Acc")


def test_a_partly_diverged_row_without_the_first_metric_is_marked_as_such():
    axes = draw_accuracy(table(*rows([1e4], [math.nan], cnn=[50.0], status="1 of 3 seeds diverged"))).axes[0]
    assert crosses(axes, "diverged") == []
    assert crosses(axes, "diverged for some seeds") == [1e4]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ({"flow": "glow"}, ["digits, fpi, mef, resnet18", "digits, fpi, glow, resnet18"]),
        ({"prior": "mean_only", "row": "$1_ or $2"}, ["digits, fpi, mef, resnet18", r"digits, \$1_ or \$2"]),
        ({"dataset": "cifar10"}, ["digits", "cifar10"]),
    ],
)
def test_panels_say_what_tells_them_apart(other, expected):
    frame = table(*rows([1, 10], [90, 91]), *rows([1, 10], [80, 81], **other))
    assert [axes.get_title(loc="left") for axes in draw_accuracy(frame).axes] == expected


@pytest.mark.parametrize("left_out", [[], ["nf_acc", "nf_acc_std"], ["flow"]], ids=["all", "no NF-Acc", "no flow"])
def test_a_table_is_read_from_its_file(left_out, tmp_path):
    frame = PAPER.drop(columns=left_out)
    write_csv(frame.assign(bits_per_dim=math.nan), tmp_path / "table2.csv")
    drawn = draw(AccuracyFigure(), FigureInputs({"table": [tmp_path / "table2.csv"]}))
    save_drawn(drawn, tmp_path / "read", "figure")
    save_drawn(Drawn({"accuracy_against_weight": draw_accuracy(frame)}), tmp_path / "kept", "figure")
    read, kept = ((tmp_path / name / "accuracy_against_weight.png").read_bytes() for name in ("read", "kept"))
    assert read == kept


def test_what_has_no_weight_is_left_out():
    frame = table(*rows([1, 10], [90, 91]), {"prior": "real", "lambda": math.nan}, {"dataset": "", "status": "cited"})
    (axes,) = draw_accuracy(frame).axes
    assert curve(axes, "NF-Acc") == {1: 90, 10: 91}


@pytest.mark.parametrize(
    "frame",
    [
        table(*rows([0], [90])),
        table(*rows([0.5, 0.7, 500], [90, 91, 92])),
        table(*rows([1e3, 1e4], [90, 91], cnn=[math.nan] * 2)),
        table({"lambda": 1e7, "status": "diverged: mean at iteration 2"}),
        table({"lambda": 0, "status": "missing"}),
    ],
    ids=["only zero", "small weights", "no classifier", "diverged", "missing"],
)
def test_sparse_tables_can_be_drawn(frame, tmp_path):
    save_drawn(Drawn({"figure": draw_accuracy(frame)}), tmp_path, "figure")


@pytest.mark.parametrize(
    "frame",
    [table({"lambda": math.nan, "nf_acc": 98.0}), DEMO.drop(columns=list(ACCURACIES)).assign(ece=1.0)],
    ids=["no weight", "other metrics"],
)
def test_a_table_with_nothing_to_draw_is_drawn_as_a_notice(frame, tmp_path):
    write_csv(frame, tmp_path / "table2.csv")
    drawn = draw(AccuracyFigure(), FigureInputs({"table": [tmp_path / "table2.csv"]}))
    (text,) = drawn.pictures["accuracy_against_weight"].texts
    assert "table2" in text.get_text()
