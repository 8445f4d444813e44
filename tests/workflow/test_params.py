"""What rules pass to their stages: the settings that a result depends on, and apart from them how a job runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nfpi.stages.base import Stage
from nfpi.stages.command_line import create_commands_model
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.jobs import Job
from nfpi.stages.prepare_data import PrepareData
from nfpi.stages.tables_and_figures import JudgeClaims, MakeFigure, MakeTable
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import FitPrior, StartFlow, TrainFlow
from nfpi.workflow import Planning
from nfpi.workflow.planning import find_changes, list_differences

from .conftest import ROOT, Project, make_planning, resolve_settings

RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "3"}
NFGD = RUN | {"prior": "nfgd"}
REAL = {"dataset": "digits", "source": "no_flow", "seed": "3", "classifier": "resnet18", "augmentation": "none"}
JOBS: list[tuple[type[Stage], dict[str, str]]] = [
    (PrepareData, {"dataset": "digits", "splits": "splits"}),
    (StartFlow, {"dataset": "digits", "flow": "mef", "start": "data", "seed": "3"}),
    (FitPrior, RUN),
    (TrainFlow, RUN),
    (TrainFlow, NFGD),
    (Evaluate, RUN),
    (Generate, RUN | {"temperature": "0.9"}),
    (Augment, RUN | {"variants": "augmented_noise"}),
    (TrainClassifier, RUN | {"classifier": "resnet18", "temperature": "1"}),
    (TrainClassifier, REAL),
    (TestClassifier, RUN | {"classifier": "resnet18"}),
    (TestClassifier, REAL),
    (MakeTable, {"table": "table2"}),
    (JudgeClaims, {}),
    (MakeFigure, {"name": "residuals"}),
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
    execution = params["execution"](wildcards)
    return json.loads(params["settings"](wildcards)[1]), json.loads(execution[1]) if execution else {}


@pytest.mark.parametrize(("stage", "wildcards"), JOBS)
def test_a_command_has_all_settings_of_its_key(stage: type[Stage], wildcards: dict[str, str], tmp_path: Path) -> None:
    planning = Planning(resolve_settings(**SETTINGS), ROOT / "workflow/reference/paper.csv", force=[].append)
    params = planning.params(stage)
    options = [word for name in ("settings", "execution", "paths") for word in params[name](wildcards)]
    commands = create_commands_model()(_cli_parse_args=[stage.command, *options])
    parsed = next(command for name in type(commands).model_fields if (command := getattr(commands, name)))
    assert isinstance(parsed, stage)
    job = Job.of(stage, wildcards)
    inputs = {name: keys for name, keys in planning.keys._list_inputs(job, parsed) if keys}
    assert parsed.compute_key(inputs) == parsed.key == planning.keys.of(job) != ""
    received, expected = (
        job.model_dump(mode="json", exclude=stage.paths) for job in (parsed, planning.planned.plan(job))
    )
    assert received == expected  # also what neither the result nor the job depends on is recorded
    named = {name for name, files in parsed.list_inputs().items() if files}
    assert named | {"predictions", "runs"} >= inputs.keys() - parsed.list_sources().keys()


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
    before, after = (stage.plan(make_planning(**settings).planned, wildcards) for settings in (base, base | changed))
    assert (before.declaration != after.declaration) == affects


def test_settings_of_a_data_set_override_the_common_ones() -> None:
    of_cifar10 = RUN | {"dataset": "cifar10", "variants": "augmented"}
    params = make_planning(datasets={"cifar10": {"source": "cifar10", "overrides": {"nfa": {"axes": 9}}}}).params(
        Augment
    )
    assert select(params, of_cifar10)[0]["nfa"]["axes"] == 9
    assert select(params, of_cifar10 | {"dataset": "digits"})[0]["nfa"]["axes"] == 16


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "λ = 1000 (s₀ = 0.28)"),  # 2 λ exp(−1/α) / (α K D), with α = 10, K = 10 and D = 64
        ({"weight": "0"}, "λ = 0"),
        ({"prior": "own"}, "λ = 1000"),
        ({"dataset": "photos"}, "λ = 1000"),
    ],
)
def test_messages_have_the_relative_weight_where_it_is_known(changes: dict[str, str], text: str) -> None:
    planning = make_planning(datasets={"photos": {"source": "imagefolder", "folder": "photos"}})
    assert planning.params(TrainFlow)["weight"](RUN | changes) == text


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ({"epochs": 40, "batch_size": 128}, {"epochs": 12, "batch_size": 128}, ["epochs: 40 → 12"]),
        ({"damping": {"first": 1}}, {"damping": {"first": 2}}, ["damping.first: 1 → 2"]),
        ({"points": 3, "axes": 1}, {"axes": 2}, ["points: 3 → null", "axes: 1 → 2"]),
        ({"rows": [{"a": 1}, {"a": 2}]}, {"rows": [{"a": 1}, {"a": 3}]}, ["rows.1.a: 2 → 3"]),
        ({"rows": [{"a": 1}]}, {"rows": [{"a": 1}, {"a": 3}]}, ['rows: [{"a": 1}] → [{"a": 1}, {"a": 3}]']),
        ({"epochs": 1}, {"epochs": 1}, []),
    ],
)
def test_each_difference_is_named(before: dict[str, Any], now: dict[str, Any], changes: list[str]) -> None:
    assert list(list_differences(before, now)) == changes
    assert list(list_differences(before, now, "block.")) == [f"block.{change}" for change in changes]


def test_changed_settings_are_named_as_in_the_config() -> None:
    before, now = (FitPrior.plan(make_planning(priors={"fpi": {"alpha": alpha}}).planned, RUN) for alpha in (10, 7))
    assert find_changes(now, before.declaration, RUN) == ["priors.fpi.alpha: 10.0 → 7.0"]


def test_a_dry_run_names_what_changed(finished_project: Project) -> None:
    text = finished_project.run_snakemake("table2", "--dry-run", "--config", "training={epochs: 12}").stdout
    changes = re.findall(r"^ *changed: (.*)$", text, re.MULTILINE)
    assert changes.count("training.epochs: 40 → 12 (the earlier result is removed)") == 1  # for all five trainings
    others = {change.partition(",")[0] for change in changes} - {
        "training.epochs: 40 → 12 (the earlier result is removed)"
    }
    assert others  # the stubs do not tell which inputs they had
    assert all(re.fullmatch(r"the \w+ that it is made from", change) for change in others)
    assert not re.search("[0-9a-f]{16}", "".join(changes))
