"""What rules pass to their stages: the settings that a result depends on, and apart from them how a job runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nfpi.runtime.manifests import write_manifest
from nfpi.stages.base import Stage
from nfpi.stages.claims import JudgeClaims
from nfpi.stages.command_line import create_commands_model
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.fit_prior import FitPrior
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.prepare_data import PrepareData
from nfpi.stages.tables_and_figures import Collect, MakeFigure, MakeTable
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import StartFlow, TrainFlow
from nfpi.workflow import Declarations

from .conftest import Project, make_plan

RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "3"}
NFGD = RUN | {"prior": "nfgd"}
REAL = {"dataset": "digits", "source": "no_flow", "seed": "3", "classifier": "resnet18", "augmentation": "none"}
JOBS: list[tuple[type[Stage], dict[str, str], list[str]]] = [
    (PrepareData, {"dataset": "digits", "splits": "splits"}, []),
    (StartFlow, {"dataset": "digits", "flow": "mef", "start": "data", "seed": "3"}, ["--data", "d"]),
    (FitPrior, RUN, ["--initial", "i"]),
    (TrainFlow, RUN, ["--data", "d", "--initial", "i", "--prior", "p"]),
    (TrainFlow, NFGD, ["--data", "d", "--initial", "i"]),
    (Evaluate, RUN, ["--data", "d", "--model", "m"]),
    (Generate, RUN | {"temperature": "0.9"}, ["--model", "m"]),
    (Augment, RUN | {"variants": "augmented_noise"}, ["--data", "d", "--model", "m"]),
    (TrainClassifier, RUN | {"classifier": "resnet18", "temperature": "1"}, ["--data", "d", "--generated", "g"]),
    (TrainClassifier, REAL, ["--data", "d"]),
    (TestClassifier, RUN | {"classifier": "resnet18"}, ["--data", "d", "c"]),
    (TestClassifier, REAL, ["--data", "d", "c"]),
    (Collect, {"table": "table2"}, ["--root", "r"]),
    (MakeTable, {"table": "table2"}, ["--root", "r", "--metrics", "m", "--reference", "p"]),
    (JudgeClaims, {}, ["--root", "r", "--reference", "p"]),
    (MakeFigure, {"name": "residuals"}, ["--files", "{}"]),
]
SETTINGS: dict[str, Any] = {
    "priors": {"nfgd": {"method": "gradient_descent"}},
    "training": {"workers": 2, "learning_rate": 3e-4, "compile": False},
    "classifiers": {"resnet18": {"workers": 1, "keep": False, "standard": {"flip": False}}},
    "generation": {"temperatures": [0.9]},
    "figures": {"residuals": {"dataset": "digits", "lambdas": [1000]}},
}


def select(params: dict[str, Any], wildcards: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON objects of `--settings` and `--execution`."""
    execution = params["execution"](wildcards, 1)
    return json.loads(params["settings"](wildcards)[1]), json.loads(execution[1]) if execution else {}


@pytest.mark.parametrize(("stage", "wildcards", "paths"), JOBS)
def test_a_command_has_all_settings_of_its_seal(
    stage: type[Stage], wildcards: dict[str, str], paths: list[str]
) -> None:
    params = Declarations(make_plan(**SETTINGS)).of(stage, **wildcards)
    options = [*params["settings"]({}), *params["execution"]({}, 1), "--output", "o", *paths]
    commands = create_commands_model()(_cli_parse_args=[stage.command, *options])
    parsed = next(command for name in type(commands).model_fields if (command := getattr(commands, name)))
    assert isinstance(parsed, stage)
    assert parsed.compute_seal() == parsed.seal != ""
    planned = stage.plan(Declarations(make_plan(**SETTINGS)).planned, wildcards)
    received, expected = (job.model_dump(mode="json", exclude=stage.paths) for job in (parsed, planned))
    assert received == expected  # also what neither the result nor the job depends on is recorded


@pytest.mark.parametrize(
    ("stage", "wildcards", "changed", "affects"),
    [
        (StartFlow, JOBS[1][1], {"training": {"epochs": 7}}, False),
        (StartFlow, JOBS[1][1], {"training": {"epochs": 7, "schedule": "cosine"}}, True),
        (StartFlow, JOBS[1][1], {"training": {"batch_size": 7}}, True),
        (TrainFlow, RUN, {"training": {"epochs": 7}}, True),
        (TrainFlow, RUN, {"training": {"workers": 7, "checkpoint_minutes": 7}}, False),
        (TrainFlow, RUN, {"priors": {"fpi": {"alpha": 7}}}, False),  # its Gaussians are an input
        (TrainFlow, NFGD, {"priors": {"nfgd": {"method": "gradient_descent", "start": "isotropic"}}}, True),
        (FitPrior, RUN, {"priors": {"fpi": {"alpha": 7}}}, True),
        (FitPrior, RUN, {"training": {"epochs": 7}}, False),
        (Generate, RUN | {"temperature": "1"}, {"generation": {"per_class": 7}}, True),
        (Generate, RUN | {"temperature": "1"}, {"generation": {"temperatures": [0.7]}}, False),
        (TrainClassifier, REAL, {"classifiers": {"resnet18": {"epochs": 7}}}, True),
        (TrainClassifier, REAL, {"classifiers": {"resnet18": {"keep": False, "workers": 7}}}, False),
        (TrainClassifier, REAL, {"classifiers": {"resnet18": {"standard": {"flip": False}}}}, False),
        (TrainClassifier, REAL, {"classifiers": {"resnet18": {"nfa_probability": 0.7}}}, False),
        (
            TrainClassifier,
            REAL | {"augmentation": "standard+nfa"},
            {"classifiers": {"resnet18": {"standard": {"flip": False}}}},
            True,
        ),
        (
            TrainClassifier,
            REAL | {"augmentation": "nfa"},
            {"classifiers": {"resnet18": {"nfa_probability": 0.7}}},
            True,
        ),
        (PrepareData, JOBS[0][1], {"datasets": {"digits": {"validation_fraction": 0.3}}}, True),
        (PrepareData, JOBS[0][1], {"datasets": {"digits": {"folder": "/elsewhere"}}}, False),
        (PrepareData, JOBS[0][1], {"datasets": {"digits": {"overrides": {"nfa": {"axes": 7}}}}}, False),
        (Evaluate, RUN, {"evaluation": {"batch_size": 7}}, True),
        (MakeTable, {"table": "table2"}, {"tables": {"table2": {"title": "Other"}}}, True),
        (MakeTable, {"table": "table2"}, {"seeds": [0, 1]}, True),
        (JudgeClaims, {}, {"tables": {"table2": {"title": "Other"}}}, False),
    ],
)
def test_a_result_depends_on_the_settings_that_affect_it(
    stage: type[Stage], wildcards: dict[str, str], changed: dict[str, Any], affects: bool
) -> None:
    base: dict[str, Any] = {"priors": {"nfgd": {"method": "gradient_descent"}}}
    before, after = (
        stage.plan(Declarations(make_plan(**settings)).planned, wildcards) for settings in (base, base | changed)
    )
    assert (before.declaration != after.declaration) == affects


def test_settings_of_a_data_set_override_the_common_ones() -> None:
    of_cifar10 = RUN | {"dataset": "cifar10"}
    plan = make_plan(datasets={"cifar10": {"source": "cifar10", "overrides": {"nfa": {"axes": 9}}}})
    declarations = Declarations(plan)
    wildcards = {"variants": "augmented"}
    assert select(declarations.of(Augment, **wildcards), of_cifar10)[0]["nfa"]["axes"] == 9
    assert select(declarations.of(Augment, **wildcards), RUN)[0]["nfa"]["axes"] == 16


class Output:
    """Outputs of a job as Snakemake passes them."""

    def __init__(self, manifest: Path) -> None:
        self.manifest = str(manifest)


def test_changed_settings_are_named_as_in_the_config(tmp_path: Path) -> None:
    params = Declarations(make_plan(training={"epochs": 7})).of(TrainFlow)
    declared = select(params, RUN)[0]
    declared["training"]["epochs"] = 40
    manifest = tmp_path / "model.manifest.json"
    output = Output(manifest)
    assert params["changed"](RUN, output) == ""
    about: dict[str, Any] = {"timed": [], "made_from": {}, "facts": {}, "digests": {}, "settings": declared}
    write_manifest(manifest, "train-flow", "model", [], **about)
    assert params["changed"](RUN, output) == "\nchanged: training.epochs: 40 → 7"
    manifest.write_text("damaged")
    assert params["changed"](RUN, output) == ""
    fit = Declarations(make_plan(priors={"fpi": {"alpha": 7}})).of(FitPrior)
    before = FitPrior.plan(Declarations(make_plan(priors={"fpi": {"alpha": 10}})).planned, RUN)
    write_manifest(manifest, "fit-prior", "prior", [], **about | {"settings": before.declaration})
    assert fit["changed"](RUN, output) == "\nchanged: priors.fpi.alpha: 10.0 → 7.0"


def test_a_dry_run_names_the_settings_that_changed(finished_project: Project, tmp_path: Path) -> None:
    project = finished_project.copy(tmp_path / "copy")
    folder = "results/demo/digits/mef/fpi/lambda=1000/seed=0"
    trainings = [call["arguments"] for call in project.read_calls() if call["stage"] == "train-flow"]
    (given,) = [arguments for arguments in trainings if folder in arguments]
    about: dict[str, Any] = {"timed": [], "made_from": {}, "facts": {}, "digests": {}}
    settings = json.loads(given[given.index("--settings") + 1])
    manifest = project.folder / folder / TrainFlow.outputs["manifest"]
    write_manifest(manifest, "train-flow", "model", [], settings=settings, **about)
    text = project.run_snakemake("table2", "--dry-run", "--config", "training={epochs: 12}").stdout
    assert re.findall(r"^ *changed: .*$", text, re.MULTILINE) == ["changed: training.epochs: 40 → 12"]
