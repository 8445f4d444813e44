"""Lists of words on the command line come as they were typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nfpi.stages.execution

from .conftest import call, read_error_line

ODD = ["3", "007", "1e5", "back\\slash", "[x]", "null", "ä λ", "\udcff.png"]


@pytest.fixture
def parse(monkeypatch):
    """The command that a command line makes; it does not run."""
    seen: list[object] = []
    monkeypatch.setattr(nfpi.stages.execution, "execute", seen.append)

    def parse(*arguments: str):
        assert call(*arguments) == 0
        return seen.pop()

    return parse


def test_files_are_taken_to_the_letter(parse):
    command = parse("classify", "model", *ODD)
    assert command.model == "model"
    assert command.images == [Path(word) for word in ODD]


def test_candidates_are_taken_to_the_letter(parse):
    command = parse("test-classifier", "--data", "d", "--real-labels", "--output", "o", *ODD)
    assert command.candidates == [Path(word) for word in ODD]


@pytest.mark.parametrize(
    "arguments",
    [
        ("model", "a", "b", "--resize", "--output", "c"),
        ("--resize", "model", "--output", "c", "a", "b"),
        ("--output", "c", "--resize", "--", "model", "a", "b"),
    ],
)
def test_options_stand_anywhere(parse, arguments):
    command = parse("classify", *arguments)
    assert (command.model, command.images, command.output) == ("model", [Path("a"), Path("b")], Path("c"))
    assert (command.resize, command.overwrite) == (True, False)


def test_a_file_may_be_called_like_an_option(parse):
    assert parse("classify", "model", "a", "--", "--resize").images == [Path("a"), Path("--resize")]


@pytest.mark.parametrize("words", [("3", '"a, b"'), ('3,"a, b"',)])
def test_an_option_takes_several_words(parse, words):
    command = parse("sample", "model", "--classes", *words, "--output", "x.png")
    assert (command.model, command.classes, command.output) == ("model", ["3", "a, b"], Path("x.png"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("classify", "model"), "IMAGES"),
        (("classify", "model", "a", "--resiz"), "--resiz"),
        (("sample", "model", "3", "--output", "x.png"), "arguments: 3"),
    ],
)
def test_wrong_usage_is_one_line(capsys, arguments, named):
    assert call(*arguments) == 2
    assert named in read_error_line(capsys)


@pytest.mark.parametrize("label", ["λ = 0", "NFπ", 'random means, Σ = "I"', "a\\b", "[x]", "{y}"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_rows_are_read_as_json(parse, label, ascii_only):
    run = {"dataset": "digits", "flow": "mef", "prior": "fpi", "lambda": 10.0, "seed": 0}
    rows = [{"experiment": 0, "dataset": "digits", "label": text, "flow_runs": [run]} for text in (label, "other")]
    for some in (rows, rows[:1]):
        text = json.dumps(some, ensure_ascii=ascii_only)
        paths = ("--metrics", "m.csv", "--reference", "p.csv", "--output", "o")
        parsed = parse("table", "--name", "t", "--table", "{}", "--rows", text, *paths)
        assert [row.label for row in parsed.rows] == [row["label"] for row in some]
