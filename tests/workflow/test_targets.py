"""Names that can be asked for, and the files that each stands for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nfpi.config import ConfigError
from nfpi.workflow import Targets

from .conftest import make_plan

TABLE = {"metrics": ["nf_acc"], "experiments": [{"dataset": "digits", "lambdas": [0], "classifier": None}]}


def make_targets(preset: str = "demo", **overrides: Any) -> Targets:
    return Targets(make_plan(preset, **overrides))


def test_every_table_and_figure_of_the_preset_is_a_target() -> None:
    targets = make_targets("fashion_mnist_small", tables={"mine": TABLE})
    tables = ["table1", "table2", "table3", "table4", "mine"]
    assert targets.names == [*tables, "accuracy_against_weight", "samples", "residuals", "claims"]


def test_a_figure_that_is_left_out_is_none() -> None:
    assert "samples" not in make_targets(figures={"samples": None}).names


TABLE_FORMS = ("csv", "md", "tex", "html", "manifest.json")


def test_a_table_brings_its_forms_and_the_figures_drawn_from_it() -> None:
    targets = make_targets(tables={"mine": TABLE})
    assert targets.files("mine") == [f"results/demo/tables/mine.{suffix}" for suffix in TABLE_FORMS]
    drawn = [f"results/demo/figures/accuracy_against_weight.{suffix}" for suffix in ("png", "pdf")]
    assert targets.files("table2")[len(TABLE_FORMS) :] == targets.files("accuracy_against_weight") == drawn


def test_a_figure_brings_all_its_pictures_and_its_numbers() -> None:
    assert make_targets().figure("figure1") == {
        **{f"{name}_png": f"results/demo/figures/{name}.png" for name in ("figure1", "figure1_full")},
        **{f"{name}_pdf": f"results/demo/figures/{name}.pdf" for name in ("figure1", "figure1_full")},
        "table": "results/demo/figures/figure1.csv",
    }


def test_all_files_are_named_once() -> None:
    targets = make_targets()
    files = targets.files(*targets.names)
    assert len(files) == len(set(files))
    assert set(files) == {file for name in targets.names for file in targets.files(name)}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"collect": TABLE}, "tables.collect: another target has this name: choose another name"),
        ({"all": TABLE}, "tables.all: another target has this name: choose another name"),
        ({"samples": TABLE}, "figures.samples: another target has this name: choose another name"),
    ],
)
def test_a_name_stands_for_one_thing(tables: dict[str, Any], message: str) -> None:
    targets = make_targets(tables=tables)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        targets.check_names(["collect", "table"])


def test_other_names_are_free() -> None:
    make_targets(tables={"demo": TABLE, "my-table.2": TABLE}).check_names(["collect", "table", "draw_samples"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "tabel2",
            "preset cifar10_small has no target 'tabel2' (did you mean 'table2'?); targets: all, table1, table2, ",
        ),
        ("benchmrak", "preset cifar10_small has no target 'benchmrak' (did you mean 'benchmark'?); targets: all, "),
        ("xyz", "preset cifar10_small has no target 'xyz' (known: all, table1, table2, table3, table4, "),
        (
            "samples",
            "preset cifar10_small has no target 'samples': add it under `figures:`; targets: all, table1, table2, ",
        ),
    ],
)
def test_an_unknown_target_names_those_there_are(target: str, message: str) -> None:
    refuse = make_targets("cifar10_small", figures={"samples": None}).reject_unknown(["benchmark"])
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*benchmark"):
        refuse({"target": target})


def test_claims_that_were_dropped_are_told_where_none_is_left() -> None:
    others = dict.fromkeys(claim for claim in make_plan().config.claims if claim != "repulsion")
    refuse = make_targets(tables={"table3": TABLE}, claims=others).reject_unknown([])
    message = "has no target 'claims': inherited claims were dropped, such as repulsion (comparisons.0.first: table "
    with pytest.raises(ConfigError, match=re.escape(message)):
        refuse({"target": "claims"})
    with pytest.raises(ConfigError, match=r"has no target 'claims': it has no claims; targets: "):
        make_targets(claims=dict.fromkeys(make_plan().config.claims)).reject_unknown([])({"target": "claims"})
