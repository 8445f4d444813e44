"""Names that can be asked for, and the files that each stands for."""

from __future__ import annotations

from typing import Any

import pytest

from nfpi.config.base import ConfigError
from nfpi.workflow import Targets

from .conftest import resolve_settings

TABLE = {"metrics": ["nf_acc"], "experiments": [{"dataset": "digits", "lambdas": [0], "classifier": None}]}


def make_targets(preset: str = "demo", **overrides: Any) -> Targets:
    return Targets(resolve_settings(preset, **overrides))


def test_every_table_and_figure_of_the_preset_is_a_target() -> None:
    targets = make_targets("fashion_mnist_small", tables={"mine": TABLE})
    config = targets.resolved.config
    assert {"mine", "table2", "samples"} < set(targets.names)
    assert set(targets.names) == {*config.tables, *config.figures, "claims"}


def test_a_figure_that_is_left_out_is_none() -> None:
    assert "samples" not in make_targets(figures={"samples": None}).names


TABLE_FORMS = ("csv", "md", "tex", "html", "manifest.json")


def test_a_table_brings_its_forms_and_the_figures_drawn_from_it() -> None:
    targets = make_targets(tables={"mine": TABLE})
    assert targets.files("mine") == [f"results/demo/tables/mine.{suffix}" for suffix in TABLE_FORMS]
    drawn = [f"results/demo/figures/accuracy_against_weight.{suffix}" for suffix in ("png", "pdf", "manifest.json")]
    assert targets.files("table2")[len(TABLE_FORMS) :] == targets.files("accuracy_against_weight") == drawn


def test_all_files_are_named_once() -> None:
    targets = make_targets()
    files = targets.files(*targets.names)
    assert len(files) == len(set(files))
    assert set(files) == {file for name in targets.names for file in targets.files(name)}


@pytest.mark.parametrize(
    ("target", "named"),
    [("tabel2", "'table2'"), ("xyz", "all, table1, table2, "), ("samples", "figures:")],
)
def test_an_unknown_target_names_those_there_are(target: str, named: str) -> None:
    refuse = make_targets("cifar10_small", figures={"samples": None}).reject_unknown(["benchmark"])
    with pytest.raises(ConfigError, match=f"cifar10_small .*'{target}'.*{named}.*nfpi targets --preset cifar10_small"):
        refuse({"target": target})
