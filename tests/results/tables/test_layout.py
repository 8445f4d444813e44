"""Tables as text for people."""

from __future__ import annotations

import math
import re

import pandas as pd
import pytest

from nfpi.results.numbers import split_weight
from nfpi.results.tables import markup
from nfpi.results.tables.building import TableError
from nfpi.results.tables.columns import ROW_COLUMNS, RowColumn, table_columns
from nfpi.results.tables.layout import lay_out, to_latex, to_markdown, write_table
from nfpi.results.tables.markup import tables_to_html
from nfpi.runtime.files import write_atomically

RUN = {"experiment": 0, "flow": "mef", "prior": "fpi", "classifier": "resnet18", "augmentation": "standard", "row": ""}


def value(
    metric: str,
    mean: float,
    std: float = math.nan,
    seeds: int | None = 1,
    paper: float = math.nan,
    interval: tuple[float, float] = (math.nan, math.nan),
) -> dict:
    cells = {metric: mean, f"paper_{metric}": paper, f"{metric}_difference": mean - paper}
    low, high = interval
    return cells | {f"{metric}_std": std, f"{metric}_seeds": seeds, f"{metric}_low": low, f"{metric}_high": high}


def frame_of_rows(*rows: dict, metrics=("nf_acc", "cnn_acc")) -> pd.DataFrame:
    columns = table_columns(metrics)
    common = {name: "" for name, kind in columns.items() if kind == "str"} | RUN
    common |= {"status": "ok", "validation": math.nan, "best": False, "split_ratio": 0.0}
    return pd.DataFrame([common | row for row in rows], columns=list(columns)).astype(columns)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    cifar10 = {"dataset": "cifar10", "experiment": 1, "candidates": 2, "chosen_by": "validation_nf_acc"}
    return frame_of_rows(
        {"dataset": "digits_8x8", "lambda": 0.0} | value("nf_acc", 94.4),
        {**cifar10, "lambda": 0.0, "validation": 70.0} | value("nf_acc", 72.5, 1.25, 3, 77.31) | value("cnn_acc", 60.0),
        {**cifar10, "lambda": 3e5, "validation": 90.0, "best": True}
        | value("nf_acc", 92.04, 0.55, 3, 93.63)
        | value("cnn_acc", 73.0, 0.5, 3, 73.03),
        {**cifar10, "lambda": 1e7, "status": "missing"},
    )


def to_html(frame: pd.DataFrame, title: str) -> str:
    return tables_to_html([(title, lay_out(frame))])


def grid_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_table_is_written_as_a_whole(table, tmp_path, monkeypatch):
    def fail_at_tex(path, content):
        if path.suffix == ".tex":
            raise OSError("no space left")
        return write_atomically(path, content)

    monkeypatch.setattr(markup, "write_atomically", fail_at_tex)
    with pytest.raises(OSError, match="no space left"):
        write_table(table, tmp_path, "table2", "Table 2")
    assert not list(tmp_path.iterdir())


def test_unknown_cells_stay_empty(table):
    for text in (to_markdown(table, "Table 2"), to_latex(table, "Table 2")):
        assert not any(word in text.lower() for word in ("nan", "<na>", "none"))


def test_markdown_is_a_rectangle_with_the_best_row_in_bold(table):
    grid = grid_of(to_markdown(table, "Table 2"))
    assert len({line.count("|") for line in grid}) == 1
    assert len(grid) == 2 + len(table)
    (bold,) = [line for line in grid if "**" in line]
    for cell in ("3·10⁵", "92.0 ± 0.6 (n = 3)", "93.63", "−1.6"):
        assert f"| **{cell}** |" in bold


def test_latex_is_a_tabular_with_as_many_cells_as_columns(table):
    text = to_latex(table, "Table 2\nand more")
    first, *lines = text.splitlines()
    assert first == "% Table 2 and more"  # a title of two lines stays a comment
    rows = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == 1 + len(table)
    assert {line.count(" & ") for line in rows} == {9}
    assert r"digits\_8x8" in text
    assert text.isascii()


def test_special_characters_are_escaped(table):
    odd = table.assign(row=r"a_b&c%d|e\f<i>", status="x")
    assert r"a\_b\&c\%d|e{\textbackslash}f" in to_latex(odd, "")
    assert r"a_b&c%d\|e\\f&lt;i>" in to_markdown(odd, "")
    assert "a &amp;lt; b" in to_markdown(table.assign(row="a &lt; b"), "")
    text = to_html(odd, "<b>Title</b>")
    assert r">a_b&amp;c%d|e\f&lt;i&gt;<" in text
    assert "<b>" not in text


def test_a_label_of_several_lines_does_not_break_the_rows_of_markdown(table):
    """As from a block of YAML, which ends with a line break."""
    assert to_markdown(table.assign(row="one\ntwo\n"), "") == to_markdown(table.assign(row="one two"), "")


def test_units_decimals_and_direction_are_those_of_the_metric():
    metrics = ("parameters", "nf_acc", "bits_per_dim", "cnn_ece")
    cells = value("parameters", 7.0514) | value("nf_acc", 92.04) | value("bits_per_dim", 3.14159, 0.0123, 2, 3.2)
    frame = frame_of_rows({"dataset": "digits", "lambda": 1.0} | cells | value("cnn_ece", 4.256), metrics=metrics)
    header, _, row = grid_of(to_markdown(frame, ""))
    assert all(text in header for text in ("Parameters (M)", "NF-Acc (%) ↑", "bits/dim ↓", "CNN ECE (%) ↓"))
    assert row == ("| 1 | 7.05 (n = 1) | 92.0 (n = 1) | 3.142 ± 0.012 (n = 2) | 3.2 | −0.058 | 4.26 (n = 1) |")
    assert to_latex(frame, "").isascii()
    without_values = frame_of_rows(
        RUN | {"dataset": "digits"} | value("nf_acc", 92.0), metrics=("nf_acc", "bits_per_dim")
    )
    assert "↑" not in to_markdown(without_values, "")  # of the only column that is shown


def test_negative_numbers_have_a_minus_sign_and_none_is_minus_zero():
    cells = value("nf_loss", -2.5, 0.1, 2, -2.25, (-3.25, -0.0004))
    rows = [cells, value("nf_loss", -0.0001, 0.1, 2)]
    frame = frame_of_rows(*({"dataset": "digits", "lambda": 1.0} | row for row in rows), metrics=["nf_loss"])
    first, second = grid_of(to_markdown(frame, ""))[2:]
    assert first == "| 1 | −2.500 ± 0.100 [−3.250, 0.000] | −2.25 | −0.250 |"
    assert second.startswith("| 1 | 0.000 ± 0.100 |")
    assert "−2.500 ± 0.100" in to_html(frame, "")
    assert "[−3.250, 0.000]" in to_html(frame, "")
    assert r"& \ensuremath{-}2.500 \ensuremath{\pm} 0.100 & \ensuremath{-}2.25 &" in to_latex(frame, "")


def test_no_digit_is_finer_than_one_image():
    rows = [
        {"dataset": "digits", "lambda": 0.0, "row": str(images), "images": images} | value("nf_acc", 94.26)
        for images in (50, 100, 101, 10000)
    ]
    cells = [line.split(" | ")[-1] for line in grid_of(to_markdown(frame_of_rows(*rows), ""))[2:]]
    assert cells == ["94 |", "94 |", "94.3 |", "94.3 |"]
    assert "| Test images |" in to_markdown(frame_of_rows(*rows), "")


@pytest.mark.parametrize("missing", ["nf_acc", "paper_cnn_acc", "status"])
def test_another_frame_is_refused(table, tmp_path, missing):
    with pytest.raises(TableError, match=f"column {missing} is missing"):
        write_table(table.drop(columns=missing), tmp_path, "table2", "Table 2")
    with pytest.raises(TableError):
        to_markdown(table[list(ROW_COLUMNS)], "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("weight", "parts"),
    [
        (500, ("500", 0)),
        (0.5, ("0.5", 0)),
        (7.5e6, ("7.5", 6)),
        (2e-5, ("2", -5)),
    ],
)
def test_weights_for_people(weight, parts):
    assert split_weight(weight) == parts
    assert float(f"{parts[0]}e{parts[1]}") == weight


# ---- comparisons with the best row, and the choice of λ ------------------------------------------------------


def compared(p_values: list[float], test: str = "paired t", **common: object) -> pd.DataFrame:
    rows = []
    for index, p_value in enumerate(p_values):
        cells = value("nf_acc", 95.0 - index, 0.4, 3, interval=(90.0, 97.0))
        cells |= {"nf_acc_test": test, "nf_acc_p": p_value}
        rows.append({"dataset": "digits", "row": f"row {index}", "experiment": index} | common | cells)
    return frame_of_rows(*rows, metrics=["nf_acc"])


def test_what_does_not_differ_from_the_best_has_a_dagger():
    frame = compared([math.nan, 0.05, 0.0499])
    lines = grid_of(to_markdown(frame, ""))[2:]
    assert ["†" in line for line in lines] == [False, True, False]
    assert to_latex(frame, "").count(r"94.0{\dag}") == 1


def test_html_has_in_grey_what_is_worse_than_the_best(tmp_path):
    write_table(compared([math.nan, 0.05, 0.0499]), tmp_path, "table", "")
    html = (tmp_path / "table.html").read_text(encoding="utf-8")
    assert "†" not in html
    cells = re.findall(r'<td class="number worse"[^>]*>([\d.]+) .*?<', html)
    assert cells == ["93.0"]
    assert "Grey: worse than the best of its column at the 5 % level" in html
    assert "†" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "No value is worse" in " ".join(lay_out(compared([math.nan, 0.05]), in_grey=True).notes)


def test_without_predictions_no_row_is_marked():
    assert "†" not in to_markdown(compared([math.nan, math.nan], test="no predictions"), "")


def test_the_validation_value_of_a_choice_stands_beside_the_test_value():
    choice = {"candidates": 2, "best": True, "validation": 91.27, "chosen_by": "validation_cnn_acc", "lambda": 1e4}
    frame = compared([math.nan, 0.01], **choice)
    assert "| 10⁴ | 91.3 | 95.0 ± 0.4" in to_markdown(frame, "")
    assert "CNN-Acc" in to_markdown(frame, "")
    assert "Validation" not in to_markdown(compared([math.nan, 0.01], **choice | {"candidates": 1}), "")


def test_labels_in_notes_are_escaped_once():
    choice = {"candidates": 2, "best": True, "validation": 9.0, "chosen_by": "validation_<a*b*>", "lambda": 1e4}
    frame = compared([math.nan, 0.01], **choice)
    assert r"Validation: validation\_&lt;a\*b\*> on that split" in to_markdown(frame, "")
    assert "Validation: validation_&lt;a*b*&gt; on that split" in to_html(frame, "")
    assert r"Validation: validation\_\ensuremath{<}a*b*" in to_latex(frame, "").replace("\n", " ")


def test_numbers_of_parameters_have_no_spread():
    frame = compared([math.nan, 0.01])
    counted = frame.rename(columns=lambda name: name.replace("nf_acc", "parameters"))
    assert "±" in to_markdown(counted.assign(parameters_std=0.1), "")
    assert "±" not in to_markdown(counted.assign(parameters_std=0.0), "").partition("Mean")[0]


# ---- flows that do not follow their priors ------------------------------------------------------------------


def test_rows_whose_flows_do_not_follow_their_priors_are_named():
    rows = [
        {"dataset": "digits", "row": "as trained", "lambda": weight, "images": images} | value("nf_acc", 90.0)
        for weight, images in ((0.0, 360), (3e5, 359))
    ]
    frame = frame_of_rows(*rows)
    assert "mismatch" not in to_markdown(frame, "")
    assert "mismatch" not in to_markdown(frame.assign(mismatch=[math.nan, 0.05]), "")
    text = to_markdown(frame.assign(mismatch=[0.05, 1.0]), "")
    assert "as trained, λ = 3·10⁵ (1.00)" in text
    assert to_latex(frame.assign(mismatch=[0.05, 1.0]), "").isascii()


def test_a_row_is_named_by_every_column_that_identifies_it(monkeypatch):
    """Also by a second number."""
    repeats = RowColumn("Int64", lambda measured: 2, "Repeats", form="{:.0f}".format)
    monkeypatch.setitem(ROW_COLUMNS, "repeats", repeats)
    frame = frame_of_rows({"dataset": "digits", "row": "own", "lambda": 3e5, "images": 360} | value("nf_acc", 90.0))
    text = to_markdown(frame.assign(mismatch=1.0, repeats=2), "")
    assert "own, λ = 3·10⁵, Repeats = 2 (1.00)" in text
