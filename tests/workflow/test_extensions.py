"""Files of the user's own: what they add is planned, and a change of one makes again what uses it and nothing else."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import (
    Job,
    Project,
    clone_project,
    list_collection_jobs,
    list_flow_jobs_of_run,
    list_jobs_of_run,
)

PRIOR = """
from nfpi.config.base import Settings
from nfpi.priors import register_prior

class Simplex(Settings):
    radius: float = 10.0

@register_prior("simplex", Simplex, uses_weight=False)
def fit_simplex(statistics, initial, weight, settings):
    return initial
"""
FLOW = """
from nfpi.config.base import Settings
from nfpi.flows import ImageFlow, register_flow

class PlanarSettings(Settings):
    layers: int = 4

@register_flow("planar", PlanarSettings)
class PlanarFlow(ImageFlow):
    def forward(self, x):
        raise NotImplementedError

    inverse = forward
"""
METRIC = """
from nfpi.results import register_metric

@register_metric("sureness", label="Sureness", decimals=3, higher_is_better=False)
def sureness(log_prob, labels):
    return 0.0
"""
CLASSIFIER = """
from nfpi.config.base import Settings
from nfpi.classifiers import register_classifier

@register_classifier("tiny", Settings)
def tiny(num_classes, in_channels, image_size, settings):
    raise NotImplementedError
"""
FILES = {"prior.py": PRIOR, "flow.py": FLOW, "metric.py": METRIC, "classifier.py": CLASSIFIER}

PRESET: dict[str, Any] = {
    "extends": "demo",
    "extensions": list(FILES),
    "priors": {"simplex": {"method": "simplex", "start": "identity"}},
    "flows": {"planar": {"kind": "planar", "layers": 2}},
    "classifiers": {
        "tiny": {"model": "tiny", "epochs": 2},
        "tiny_of_real": {"model": "tiny", "epochs": 2, "train_on": "real"},
    },
    "tables": {
        "plain": {"experiments": [{"dataset": "digits", "lambdas": [1e4]}]},
        "with_prior": {"experiments": [{"dataset": "digits", "prior": "simplex", "classifier": None}]},
        "with_flow": {"experiments": [{"dataset": "digits", "flow": "planar", "lambdas": [0, 1e4]}]},
        "with_metric": {
            "metrics": ["nf_acc", "sureness", "cnn_sureness"],
            "experiments": [{"dataset": "digits", "lambdas": [1e3]}],
        },
        "with_metric_of_flows": {"metrics": ["sureness"], "experiments": [{"dataset": "digits", "lambdas": [0]}]},
        "with_classifier": {
            "metrics": ["cnn_acc", "top1"],
            "experiments": [
                {"dataset": "digits", "lambdas": [1e4], "classifier": "tiny"},
                {"dataset": "digits", "prior": None, "classifier": "tiny_of_real", "augmentation": "none"},
            ],
        },
    },
}
TABLES = list(PRESET["tables"])
MINE = (*TABLES, "--config", "preset=mine.yaml")

SIMPLEX = "digits/mef/simplex/lambda=0/seed=0"
PLANAR = ["digits/planar/baseline/lambda=0/seed=0", "digits/planar/fpi/lambda=10000/seed=0"]
FPI, BASELINE = "digits/mef/fpi/lambda=10000/seed=0", "digits/mef/baseline/lambda=0/seed=0"
MEASURED = "digits/mef/fpi/lambda=1000/seed=0"
OF_REAL = "digits/no_flow/seed=0/tiny_of_real/augmentation=none"

OF_PRIOR: set[Job] = (
    list_flow_jobs_of_run(SIMPLEX) | {("fit-prior", f"{SIMPLEX}/fit")} | list_collection_jobs("with_prior")
)
OF_FLOW: set[Job] = (
    set().union(*map(list_jobs_of_run, PLANAR))
    | {("start-flow", "digits/planar/initial/data/seed=0")}
    | list_collection_jobs("with_flow")
)
OF_METRIC: set[Job] = {
    *(("evaluate", run) for run in (MEASURED, BASELINE)),
    ("test-classifier", f"{MEASURED}/resnet18"),
} | list_collection_jobs("with_metric", "with_metric_of_flows")
OF_CLASSIFIER: set[Job] = {
    ("train-classifier", f"{FPI}/tiny/temperature=1"),
    ("test-classifier", f"{FPI}/tiny"),
    ("train-classifier", f"{OF_REAL}/trained"),
    ("test-classifier", OF_REAL),
} | list_collection_jobs("with_classifier")


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which all tables of a preset with extensions are made."""
    project = clone_project(tmp_path_factory.mktemp("extended") / "clone")
    project.write("mine.yaml", PRESET)
    for name, content in FILES.items():
        project.write(name, content)
    project.run_snakemake(*MINE)
    return project


@pytest.fixture
def changed(extended: Project, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The same with another content of one file, which gets its own back."""
    name = request.param
    extended.write(name, f"{FILES[name]}\nCHANGED = True\n")
    yield extended
    extended.write(name, FILES[name])


def test_what_extensions_add_is_made(extended: Project) -> None:
    shared = {("prepare-data", "digits/splits")} | {
        ("start-flow", f"digits/mef/initial/{start}/seed=0") for start in ("data", "identity")
    }
    runs = set().union(*map(list_jobs_of_run, (FPI, BASELINE, MEASURED)))
    assert (
        extended.list_finished_jobs()
        == shared | runs | OF_PRIOR | OF_FLOW | OF_METRIC | OF_CLASSIFIER | list_collection_jobs("plain")
    )
    assert "Nothing to be done" in extended.run_snakemake(*MINE, "--dry-run").stdout


@pytest.mark.parametrize(
    ("changed", "expected"),
    [("prior.py", OF_PRIOR), ("flow.py", OF_FLOW), ("metric.py", OF_METRIC), ("classifier.py", OF_CLASSIFIER)],
    indirect=["changed"],
    ids=list(FILES),
)
def test_a_change_makes_again_what_uses_the_file(changed: Project, expected: set[Job]) -> None:
    assert changed.plan_jobs(*MINE) == expected


def test_files_that_are_moved_make_nothing_again(extended: Project, tmp_path: Path) -> None:
    project = extended.copy(tmp_path / "copy")
    for name in FILES:
        (project.folder / "mine").mkdir(exist_ok=True)
        (project.folder / name).rename(project.folder / "mine" / name)
    project.write("mine.yaml", PRESET | {"extensions": [f"mine/{name}" for name in FILES]})
    assert project.plan_jobs(*MINE) == set()


def test_every_command_loads_the_files(fresh_project: Project) -> None:
    fresh_project.write("mine.yaml", PRESET)
    for name, content in FILES.items():
        fresh_project.write(name, content)
    call = ("all", "--dry-run", "--printshellcmds", "--config", "preset=mine.yaml")
    printed = fresh_project.run_snakemake(*call).stdout
    stages = set()
    for command in re.findall(r"^Shell command: exec nfpi --log \S+ (.+)$", printed, re.MULTILINE):
        stage, *arguments = shlex.split(command)
        loaded = [value for name, value in itertools.pairwise(arguments) if name == "--extensions"]
        assert loaded == [str(fresh_project.folder / name) for name in FILES], command
        stages.add(stage)
    assert stages >= {"evaluate", "table", "claims", "figure"}


def test_an_error_in_a_file_is_one_line(fresh_project: Project) -> None:
    fresh_project.write("wrong.py", "x = 1\ny = (\n")
    line = fresh_project.read_refusal("table2", "--config", "extensions=[wrong.py]")
    assert re.search(r"/wrong\.py:2: SyntaxError: ", line)
