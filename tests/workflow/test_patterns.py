"""Wildcards of the rules."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from nfpi.stages.prepare_data import EncodeData, PrepareData
from nfpi.workflow import Patterns

from .conftest import resolve_settings


def make_patterns(preset: str = "demo", **overrides: Any) -> Patterns:
    return Patterns(resolve_settings(preset, **overrides).config)


def fits(constraints: Mapping[str, str], wildcards: Mapping[str, str]) -> bool:
    return all(re.fullmatch(constraints[name], value) for name, value in wildcards.items())


@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_wildcards_may_be_what_runs_have(preset: str) -> None:
    patterns = make_patterns(preset)
    constraints, config = patterns.wildcard_constraints(), patterns.config
    for _, experiment in config.iterate_experiments():
        for weight in experiment.weights or [None]:
            for pair in config.list_runs(experiment, weight):
                for run in filter(None, pair):
                    assert fits(constraints, run.wildcards), run


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "digit"),
        ("flow", "initial"),
        ("prior", "initial"),
        ("weight", "e5"),
        ("weight", "nan"),
        ("seed", "01"),
        ("start", "baseline"),
        ("source", "mef/fpi/lambda="),
        ("augmentation", "nfa+standard"),
        ("classifier", "model"),
        ("table", "table99"),
    ],
)
def test_wildcards_may_be_nothing_else(name: str, value: str) -> None:
    assert not fits(make_patterns().wildcard_constraints(), {name: value})


def test_names_are_taken_literally_and_none_fits_where_there_are_none() -> None:
    constraints = make_patterns(tables={"a.b": {"experiments": [{"dataset": "digits", "lambdas": [0]}]}})
    assert not fits(constraints.wildcard_constraints(), {"table": "aXb"})
    assert not re.fullmatch(make_patterns().made_by(EncodeData, "dataset"), "")


@pytest.mark.parametrize("name", ["imagenet", "cifar10"])
def test_a_data_set_is_prepared_or_encoded(name: str) -> None:
    patterns = make_patterns("paper")
    assert bool(re.fullmatch(patterns.made_by(EncodeData, "dataset"), name)) is (name == "imagenet")
    assert bool(re.fullmatch(patterns.made_by(PrepareData, "dataset"), name)) is (name == "cifar10")
