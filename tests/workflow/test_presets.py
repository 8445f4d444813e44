"""Presets of the user's own, targets, and results of older versions."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conftest import Project, collection, flow_of_run, jobs_of_run

ROW: dict[str, Any] = {"dataset": "digits", "lambdas": [1e4]}
TABLE7: dict[str, Any] = {"metrics": ["nf_acc"], "experiments": [ROW | {"classifier": None}]}
RUN = "digits/mef/fpi/lambda=10000/seed=0"
BEFORE = {("prepare-data", "digits/splits"), ("start-flow", "digits/mef/initial/data/seed=0")}


def table(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"experiments": list(rows)}


def test_a_table_of_ones_own_preset_is_a_target(fresh: Project) -> None:
    fresh.write("mine.yaml", {"extends": "demo", "tables": {"table7": TABLE7}})
    mine = ("table7", "--config", "preset=mine.yaml")
    fresh.snakemake(*mine)
    assert fresh.made() == BEFORE | flow_of_run(RUN) | {("fit-prior", f"{RUN}/fit")} | collection("table7")
    assert sorted(path.name for path in (fresh.folder / "results/mine/tables").iterdir()) == [
        f"table7.{suffix}" for suffix in ("csv", "html", "manifest.json", "md", "tex")
    ]
    assert fresh.plan(*mine) == set()


def test_a_preset_may_stand_anywhere_and_extend_another_file(fresh: Project) -> None:
    fresh.write("elsewhere/rows.yaml", {"extends": "cifar10_small", "seeds": [0], "tables": {"more": TABLE7}})
    fresh.write("elsewhere/seeds.yaml", {"extends": "rows.yaml", "seeds": [5]})
    planned = fresh.plan("more", "--config", "preset=elsewhere/seeds.yaml")
    run = "digits/mef/fpi/lambda=10000/seed=5"
    assert planned == flow_of_run(run) | {
        ("prepare-data", "digits/splits"),
        ("start-flow", "digits/mef/initial/data/seed=5"),
        ("fit-prior", f"{run}/fit"),
    } | collection("more")


def test_a_preset_that_extends_the_paper_plans_what_the_paper_does(fresh: Project) -> None:
    fresh.write("mine.yaml", {"extends": "paper"})
    assert fresh.plan("table3", "--config", "preset=mine.yaml") == fresh.plan("table3", "--config", "preset=paper")


def test_the_file_of_a_preset_that_is_missing_is_named(fresh: Project) -> None:
    message = fresh.refusal("table2", "--config", "preset=mine.yaml")
    assert re.fullmatch(
        r"config: preset: expected a file with settings, received \S+/mine\.yaml, which does not exist", message
    )


def test_a_file_with_the_name_of_a_preset_of_the_project_is_refused(fresh: Project) -> None:
    fresh.write("mine/demo.yaml", {"extends": "paper"})
    message = fresh.refusal("table2", "--config", "preset=mine/demo.yaml")
    assert message.endswith("'demo' is the name of a preset of the project: rename the file")


@pytest.mark.parametrize(
    "name", ["all", "collect", "train_flow", "draw_samples", "benchmark", "unknown_target", "samples"]
)
def test_a_table_is_not_called_like_another_target(fresh: Project, name: str) -> None:
    message = fresh.refusal("table2", overlay={"tables": {name: TABLE7}})
    assert message == f"config: {'figures' if name == 'samples' else 'tables'}.{name}: " + (
        "another target has this name: choose another name"
    )


@pytest.mark.parametrize(
    ("target", "preset", "message"),
    [
        (
            "tabel2",
            "demo",
            "preset demo has no target 'tabel2' (did you mean 'table2'?); targets: all, table1, table2, ",
        ),
        ("residual", "demo", "preset demo has no target 'residual' (did you mean 'residuals'?); targets: all, "),
        ("my-table.3+x", "demo", "preset demo has no target 'my-table.3+x' (did you mean 'table3'?)"),
        ("demo", "demo", "preset demo has no target 'demo' (known: all, table1, "),
        ("table5", "cifar10_small", "preset cifar10_small has no target 'table5' (did you mean 'table2'?); targets: "),
        (
            "figure2",
            "fashion_mnist_small",
            "preset fashion_mnist_small has no target 'figure2': name it under `figures:`; targets: all, table2, "
            "accuracy_against_weight, samples, residuals, claims, benchmark",
        ),
    ],
)
def test_an_unknown_target_names_those_there_are(fresh: Project, target: str, preset: str, message: str) -> None:
    line = fresh.refusal(target, "--config", f"preset={preset}")
    assert line.startswith(f"ConfigError: {message}")
    assert "benchmark" in line


def test_a_prior_may_become_one_that_is_learned_along_with_the_flow(fresh: Project) -> None:
    by_gradient = ("--config", "priors={fpi: {method: gradient_descent}}")
    weights = ("0", "1000", "10000", "30000", "100000")
    runs = [f"digits/mef/fpi/lambda={weight}/seed=0" for weight in weights]
    jobs = set().union(*map(jobs_of_run, runs))
    fits = {job for job in jobs if job[0] == "fit-prior"}
    assert fresh.plan("table2", *by_gradient) == BEFORE | (jobs - fits) | collection("table2") | {
        ("figure", "figures/accuracy_against_weight")
    }
    assert fresh.refusal("residuals", *by_gradient) == (
        "ConfigError: figures.residuals: expected a prior fitted by fixed-point iteration, "
        "received 'fpi' (gradient_descent)"
    )


def test_the_same_prior_under_another_name_of_ones_own(fresh: Project) -> None:
    mine = {"priors": {"mine": {"start": "identity"}}, "tables": {"mine": table(ROW | {"prior": "mine"})}}
    run = "digits/mef/mine/lambda=10000/seed=0"
    assert fresh.plan("mine", overlay=mine) == collection("mine") | jobs_of_run(run) | {
        ("prepare-data", "digits/splits"),
        ("start-flow", "digits/mef/initial/identity/seed=0"),
    }


@pytest.mark.parametrize(
    "folder",
    ["digits/fpi/lambda=1000/seed=0", "digits/real/seed=0/swin/augmentation=none", "digits/start/data/seed=0"],
)
def test_results_of_an_older_version_are_refused_in_one_line(fresh: Project, folder: str) -> None:
    (fresh.folder / "results/demo" / folder).mkdir(parents=True)
    line = fresh.refusal("table2")
    assert line.startswith("made by an older version: results/demo/digits/")
    assert "move them away, or choose another folder by `results:`" in line
    assert fresh.plan("table2", "--config", "results=results/new")
    fresh.write("mine.yaml", {"extends": "demo"})
    assert fresh.plan("table2", "--config", "preset=mine.yaml")
