"""What a run is, where it lies, and how it is written."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfpi.runs import SPLITS_OF_SEED, SPLITS_PATTERN, Layout, Run, format_weight, parse_run_folder, parse_splits_seed

FLOW = Run(dataset="digits", flow="mef", prior="fpi", weight=3e4, seed=1)
FOLDERS = {
    FLOW: "digits/mef/fpi/lambda=30000/seed=1",
    replace(FLOW, prior="baseline", weight=0.0): "digits/mef/baseline/lambda=0/seed=1",
    replace(FLOW, classifier="resnet18"): "digits/mef/fpi/lambda=30000/seed=1/resnet18",
    replace(FLOW, classifier="swin", augmentation="standard+nfa"): (
        "digits/mef/fpi/lambda=30000/seed=1/swin/augmentation=standard+nfa"
    ),
    Run(dataset="digits", seed=0, classifier="swin", augmentation="none"): (
        "digits/no_flow/seed=0/swin/augmentation=none"
    ),
}


@pytest.mark.parametrize(("run", "folder"), FOLDERS.items())
def test_a_run_lies_in_a_folder_of_its_own(run, folder):
    assert run.folder == folder
    assert Layout(Path("results/demo")).of(run) == f"results/demo/{folder}"


@pytest.mark.parametrize("run", FOLDERS)
def test_a_run_is_read_back(run):
    assert Run.from_json(json.loads(json.dumps(run.to_json()))) == run
    assert Run.from_wildcards(run.wildcards) == run
    assert Run.from_wildcards(run.wildcards | {"temperature": "1"}) == run


def test_lambda_is_its_name_in_files_and_tables():
    assert FLOW.to_json() == {"dataset": "digits", "seed": 1, "flow": "mef", "prior": "fpi", "lambda": 3e4}
    assert FLOW.row()["lambda"] == 3e4
    row = Run(dataset="digits", seed=0, classifier="swin", augmentation="none").row()
    assert math.isnan(row["lambda"])
    assert (row["flow"], row["prior"], row["classifier"], row["augmentation"]) == ("", "", "swin", "none")


def test_the_flow_of_a_classifier():
    assert replace(FLOW, classifier="resnet18").of_flow == FLOW


@pytest.mark.parametrize(
    "changes",
    [
        {"flow": None},
        {"weight": None},
        {"prior": None},
        {"flow": None, "prior": None, "weight": None},
        {"augmentation": "nfa"},
        {"weight": -1.0},
        {"weight": math.inf},
        {"weight": math.nan},
        {"seed": 2**63},
        {"seed": -1},
        {"seed": "1"},
    ],
)
def test_what_is_no_run_is_refused(changes):
    with pytest.raises(ValueError, match=r"^run: "):
        replace(FLOW, **changes)


@pytest.mark.parametrize("record", [{}, {"dataset": "digits"}, {"dataset": "digits", "seed": 1, "colour": "red"}])
def test_what_is_no_identity_is_refused_in_one_line(record):
    with pytest.raises(ValueError, match="identity") as error:
        Run.from_json(record)
    assert "\n" not in str(error.value)


# ---- λ in paths ---------------------------------------------------------------------------------------------

WEIGHTS = st.floats(min_value=0, allow_infinity=False)


@given(WEIGHTS)
def test_a_weight_is_read_back_from_its_text(weight):
    assert float(format_weight(weight)) == weight
    assert format_weight(format_weight(weight)) == format_weight(weight)
    assert Run.from_wildcards(replace(FLOW, weight=weight).wildcards).weight == weight


@given(WEIGHTS, st.sampled_from(["{!r}", "{:.17g}", "{:.17e}", "+{!r}", " {!r} ", "00{:.17f}"]))
def test_equal_weights_have_one_text(weight, form):
    text = form.format(weight)
    if float(text) == weight:
        assert format_weight(text) == format_weight(weight)


@given(WEIGHTS, WEIGHTS)
def test_different_weights_have_different_texts(one, other):
    assert (format_weight(one) == format_weight(other)) == (one == other)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1e4", "10000", "1.0e4", "10000.0", 10000, 1e4], "10000"),
        (["0", "0.0", -0.0, 0], "0"),
        (["0.5", ".5", "5e-1"], "0.5"),
        ([1e15, "1000000000000000"], "1000000000000000.0"),
        ([1e22], "1e+22"),
    ],
)
def test_texts_of_weights(texts, expected):
    assert {format_weight(text) for text in texts} == {expected}


# ---- folders ------------------------------------------------------------------------------------------------


@given(WEIGHTS)
def test_a_run_is_read_back_from_its_folder(weight):
    flow = replace(FLOW, weight=weight)
    for run in (
        flow,
        replace(flow, classifier="resnet18"),
        replace(flow, classifier="swin", augmentation="standard+nfa"),
        Run(dataset="cifar10", seed=3, classifier="swin", augmentation="none"),
    ):
        assert parse_run_folder(run.folder) == run


@pytest.mark.parametrize(
    "folder",
    [
        "digits/mef/fpi/lambda=1/seed=0/model",
        "digits/mef/fpi/lambda=1/seed=0/resnet18/temperature=1",
        "digits/mef/fpi/lambda=1--e/seed=0",
        "digits/mef/initial/data/seed=0",
        "logs/digits/mef/fpi/lambda=1/seed=0",
        "tables",
    ],
)
def test_other_folders_are_of_no_run(folder):
    assert parse_run_folder(folder) is None


@given(st.integers(0, 2**63 - 1))
def test_splits_of_a_seed_are_told_from_those_of_all(seed):
    splits = SPLITS_OF_SEED.format(seed=seed)
    assert parse_splits_seed(splits) == seed
    assert re.fullmatch(SPLITS_PATTERN, splits)
    assert parse_run_folder(f"digits/{splits}") is None


def test_splits_of_all_seeds_have_no_seed():
    assert parse_splits_seed("splits") is None
    assert re.fullmatch(SPLITS_PATTERN, "splits")


@pytest.mark.parametrize(
    "other", ["splits/", "splits/seed=", "splits/seed=01", "splits/train", "mef", "splits/seed=1/train"]
)
def test_other_folders_are_no_splits(other):
    assert re.fullmatch(SPLITS_PATTERN, other) is None
