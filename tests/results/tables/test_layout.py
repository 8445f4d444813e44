"""Tables as text for people."""

from __future__ import annotations

import math

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
    return {
        metric: mean,
        f"{metric}_std": std,
        f"{metric}_low": interval[0],
        f"{metric}_high": interval[1],
        f"{metric}_seeds": seeds,
        f"paper_{metric}": paper,
        f"{metric}_difference": mean - paper,
    }


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


def test_a_note_says_why_distances_are_empty():
    row = {"dataset": "digits", "lambda": 0.0} | value("nf_acc", 94.4)
    metrics = ("nf_acc", "fid_resnet18", "kid_resnet18")
    few = row | value("fid_resnet18", 3.0) | value("kid_resnet18", math.nan, seeds=None)
    notes = lay_out(
        frame_of_rows(few, {"dataset": "digits", "lambda": 1.0, "status": "missing"}, metrics=metrics)
    ).notes
    (note,) = (note for note in notes if "twice the number of features" in note)
    assert note.startswith("KID (ResNet18): empty")
    all_known = few | value("kid_resnet18", 0.1)
    assert not any("twice" in note for note in lay_out(frame_of_rows(all_known, metrics=metrics)).notes)


def test_four_files_are_written(table, tmp_path):
    write_table(table, tmp_path, "table2", "Table 2")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"table2.{form}" for form in ("csv", "html", "md", "tex")
    ]
    assert (tmp_path / "table2.csv").read_text().splitlines()[-1] == (
        "1,,cifar10,mef,fpi,10000000.0,resnet18,standard,,missing,,validation_nf_acc,2,False,0.0" + 18 * ","
    )


def test_a_table_is_written_as_a_whole(table, tmp_path, monkeypatch):
    def fail_at_tex(path, content):
        if path.suffix == ".tex":
            raise OSError("no space left")
        return write_atomically(path, content)

    monkeypatch.setattr(markup, "write_atomically", fail_at_tex)
    with pytest.raises(OSError, match="no space left"):
        write_table(table, tmp_path, "table2", "Table 2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metrics", "in_points"),
    [(("nf_acc",), True), (("bits_per_dim",), False), (("nf_acc", "bits_per_dim"), False)],
)
def test_differences_are_in_points_where_all_of_them_are_of_percentages(metrics, in_points):
    row = {"dataset": "digits", "lambda": 0.0}
    for name in metrics:
        row |= value(name, 3.0, paper=2.0)
    text = to_markdown(frame_of_rows(row, metrics=metrics), "")
    assert "Difference: ours − the paper's" in text
    assert ("in percentage points" in text) == in_points


@pytest.mark.parametrize(("metric", "is_of_flow"), [("nf_acc", True), ("cnn_acc", True), ("real_top1", False)])
def test_the_size_of_the_papers_flow_is_said_where_flows_are_compared(metric, is_of_flow):
    text = to_markdown(frame_of_rows(RUN | value(metric, 90.0, paper=91.0), metrics=[metric]), "t")
    assert ("large flow" in text) == is_of_flow
    assert "Difference: ours − the paper's" in text


def test_unknown_cells_stay_empty(table):
    for text in (to_markdown(table, "Table 2"), to_latex(table, "Table 2")):
        assert not any(word in text.lower() for word in ("nan", "<na>", "none"))
    (line,) = [line for line in grid_of(to_markdown(table, "")) if "10⁷" in line]
    assert line == "| cifar10 | 10⁷ |  |  |  |  |  |  |  | missing |"


def test_markdown_is_a_rectangle_with_the_best_row_in_bold(table):
    text = to_markdown(table, "Table 2")
    grid = grid_of(text)
    assert text.splitlines()[0] == "**Table 2**"
    assert len({line.count("|") for line in grid}) == 1
    assert len(grid) == 2 + len(table)
    assert grid[0] == (
        "| Data set | λ | Validation (%) | NF-Acc (%) | NF-Acc, paper | NF-Acc, difference "
        "| CNN-Acc (%) | CNN-Acc, paper | CNN-Acc, difference | Status |"
    )
    (bold,) = [line for line in grid if "**" in line]
    assert "| **92.0 ± 0.6 (n = 3)** | **93.63** | **−1.6** |" in bold
    assert "**3·10⁵**" in bold
    assert "| digits_8x8 | 0 |  | 94.4 (n = 1) |" in text
    assert "Bold: the λ that is best on the validation split." in text


def test_latex_is_a_tabular_with_as_many_cells_as_columns(table):
    text = to_latex(table, "Table 2\nand more")
    lines = text.splitlines()
    assert lines[0] == "% Table 2 and more"
    rows = [line for line in lines if line.endswith(r"\\") and "multicolumn" not in line]
    assert text.count(r"\begin{tabular}{@{}lrrrrrrrrl@{}}") == text.count(r"\end{tabular}") == 1
    assert len(rows) == 1 + len(table)
    assert r"\multicolumn{3}{c}{NF-Acc (\%)}" in text
    assert r"\cmidrule(lr){4-6} \cmidrule(lr){7-9}" in text
    assert {line.count(" & ") for line in rows} == {9}
    assert r"digits\_8x8" in text
    assert r"\textbf{3\ensuremath{\cdot}10\ensuremath{^5}}" in text
    assert r"& \textbf{73.03} & \textbf{+0.0} & " in text
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
    assert header == (
        "| λ | Parameters (M) | NF-Acc (%) ↑ | bits/dim ↓ | bits/dim, paper | bits/dim, difference | CNN ECE (%) ↓ |"
    )
    assert row == ("| 1 | 7.05 (n = 1) | 92.0 (n = 1) | 3.142 ± 0.012 (n = 2) | 3.2 | −0.058 | 4.26 (n = 1) |")
    assert to_latex(frame, "").isascii()


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


def test_what_all_rows_share_stands_below_them_once():
    rows = [
        {"dataset": "digits", "lambda": weight, "images": 360} | value("nf_acc", 94.26, interval=(91.23, 96.28))
        for weight in (0.0, 1e4)
    ]
    text = to_markdown(frame_of_rows(*rows), "")
    assert grid_of(text)[0] == "| λ | NF-Acc (%) |"
    assert grid_of(text)[2] == "| 0 | 94.3 [91.2, 96.3] |"
    notes = text.splitlines()[-1]
    assert "on digits (n = 1 seed). Accuracies on 360 test images. [low, high]: 95 %" in notes
    assert "94.3 [91.2, 96.3]" in to_latex(frame_of_rows(*rows), "")


def test_no_digit_is_finer_than_one_image():
    rows = [
        {"dataset": "digits", "lambda": 0.0, "row": str(images), "images": images} | value("nf_acc", 94.26)
        for images in (50, 100, 101, 10000)
    ]
    cells = [line.split(" | ")[-1] for line in grid_of(to_markdown(frame_of_rows(*rows), ""))[2:]]
    assert cells == ["94 |", "94 |", "94.3 |", "94.3 |"]
    assert "| Test images |" in to_markdown(frame_of_rows(*rows), "")


def test_labels_that_tell_the_flow_stand_for_it():
    rows = [{"dataset": "digits", "row": flow, "flow": flow} | value("nf_acc", 90.0) for flow in ("mef", "glow")]
    assert "Flow" not in to_markdown(frame_of_rows(*rows), "")


@pytest.mark.parametrize("label", ["", "x"])
def test_the_flow_is_shown_where_rows_differ_in_it(label):
    rows = [{"dataset": "digits", "row": label, "flow": flow} | value("nf_acc", 90.0) for flow in ("mef", "glow")]
    assert "| Flow |" in to_markdown(frame_of_rows(*rows), "")
    rows = [{"dataset": "digits", "row": label, "flow": flow} | value("nf_acc", 90.0) for flow in ("mef", "")]
    assert "Flow" not in to_markdown(frame_of_rows(*rows), "")


def test_the_prior_is_shown_where_there_are_several_and_rows_have_no_labels():
    rows = [{"dataset": "digits", "prior": prior} | value("nf_acc", 90.0) for prior in ("fpi", "mean_only")]
    assert "| Prior | NF-Acc (%) |" in to_markdown(frame_of_rows(*rows), "")
    assert "Prior" not in to_markdown(frame_of_rows(*(row | {"row": "x"} for row in rows)), "")


def test_a_chosen_weight_is_said_to_be_chosen():
    rows = [
        {"experiment": weight, "dataset": "digits", "lambda": float(weight), "best": True, "candidates": 2}
        | value("nf_acc", 90.0)
        for weight in (1, 2)
    ]
    text = to_markdown(frame_of_rows(*rows), "")
    assert "**" not in text
    assert "of those tried" in text


def test_cited_work_is_said_to_be_cited():
    cited = {"prior": "", "flow": "", "classifier": "", "augmentation": "", "status": "cited"}
    frame = frame_of_rows(
        {"dataset": "digits", "lambda": 1.0} | value("nf_acc", 99.0),
        {**cited, "experiment": 1, "row": "A (2020)", "dataset": "cifar10", "paper_nf_acc": 88.0},
        {**cited, "experiment": 2, "row": "B (2021)", "dataset": ""},
    )
    text = to_markdown(frame, "")
    assert "| B (2021) |  |  |  |  |" in text
    assert "| A (2020) | cifar10 |  |  | 88 |" in text
    assert "Cited rows have only published values" in text.splitlines()[-1]
    assert "Status" not in text


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
        (0, ("0", 0)),
        (500, ("500", 0)),
        (0.5, ("0.5", 0)),
        (1e3, ("1", 3)),
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
    assert lines == [
        "| row 0 | 95.0 ± 0.4 [90.0, 97.0] |",
        "| row 1 | 94.0† ± 0.4 [90.0, 97.0] |",
        "| row 2 | 93.0 ± 0.4 [90.0, 97.0] |",
    ]
    note = "†: does not differ from the best of its column at the 5 % level (paired t test over seeds, Holm"
    assert note in to_markdown(frame, "")
    assert to_html(frame, "").count("94.0† ±") == 1
    text = to_latex(frame, "")
    assert text.count(r"94.0{\dag} \ensuremath{\pm} 0.4") == text.count(r"{\dag} \ensuremath{\pm}") == 1
    assert text.isascii()


def test_where_all_rows_differ_it_is_said():
    text = to_markdown(compared([math.nan, 0.01]), "")
    assert "†" not in text
    assert "Each other value differs from the best of its column at the 5 % level" in text


def test_the_test_of_one_seed_is_named():
    text = to_markdown(compared([math.nan, 0.6], test="McNemar"), "")
    assert "94.0†" in text
    assert "McNemar's exact test on the test images, Holm" in text


def test_without_predictions_no_row_is_marked():
    text = to_markdown(compared([math.nan, math.nan], test="no predictions"), "")
    assert "†" not in text
    assert "Where predictions of runs are missing, rows are not compared with the best one." in text


def test_rows_that_were_not_compared_are_told_from_those_that_differ():
    frame = compared([math.nan, 0.01, math.nan])
    frame.loc[2, "nf_acc_test"] = ""
    assert "Not tested in some rows: NF-Acc." in to_markdown(frame, "")
    of_two = frame_of_rows(*(row | value("ece", 3.0) for row in frame.to_dict("records")), metrics=["nf_acc", "ece"])
    of_two["nf_acc_test"], of_two["nf_acc_p"] = frame["nf_acc_test"], frame["nf_acc_p"]
    assert "Not tested: ECE. Not tested in some rows: NF-Acc." in to_markdown(of_two, "")
    assert "Not compared" not in to_markdown(compared([math.nan, 0.01]), "")


def test_the_validation_value_of_a_choice_stands_beside_the_test_value():
    choice = {"candidates": 2, "best": True, "validation": 91.27, "chosen_by": "validation_cnn_acc", "lambda": 1e4}
    frame = compared([math.nan, 0.01], **choice)
    assert grid_of(to_markdown(frame, ""))[0] == "|  | λ | Validation (%) | NF-Acc (%) |"
    assert "| 10⁴ | 91.3 | 95.0 ± 0.4" in to_markdown(frame, "")
    assert "Validation: CNN-Acc on that split" in to_markdown(frame, "")
    assert ">Validation (%)</th>" in to_html(frame, "")
    assert r"& Validation & NF-Acc \\" in to_latex(frame, "")
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


def test_both_sources_of_spread_are_named():
    frame = compared([math.nan, 0.01])
    assert "over n = 3 seeds" in to_markdown(frame, "")
    for text in (to_markdown(frame, ""), to_latex(frame, "").replace("\n", " ")):
        assert "does not include the effect of the choice of test images, unless each seed has its own split" in text
    single = frame.assign(nf_acc_std=math.nan, nf_acc_seeds=1)
    assert "over the choice of test images (Wilson). It does not include the spread over seeds." in to_markdown(
        single, ""
    )


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
    assert "do not follow their priors (mismatch in bits/dim): as trained, λ = 3·10⁵ (1.00)." in text
    assert "CNN-Acc" in text
    assert "a smaller λ or a refit" in text
    assert to_latex(frame.assign(mismatch=[0.05, 1.0]), "").isascii()


def test_a_row_is_named_by_every_column_that_identifies_it(monkeypatch):
    """Also by a second number."""
    repeats = RowColumn("Int64", lambda measured: 2, "Repeats", form="{:.0f}".format)
    monkeypatch.setitem(ROW_COLUMNS, "repeats", repeats)
    frame = frame_of_rows({"dataset": "digits", "row": "own", "lambda": 3e5, "images": 360} | value("nf_acc", 90.0))
    text = to_markdown(frame.assign(mismatch=1.0, repeats=2), "")
    assert "(mismatch in bits/dim): own, λ = 3·10⁵, Repeats = 2 (1.00)." in text
