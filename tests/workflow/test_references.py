"""What a table needs that names references of CNN-Acc and measures of generated images."""

from __future__ import annotations

import re
from typing import Any

import pytest
from snakemake.io import regex_from_filepattern

from nfpi.runs import REAL_CLASSIFIER, Run
from nfpi.stages import jobs
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.jobs import Planned
from nfpi.stages.test_classifier import MeasureSamples, TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.workflow import Patterns

from .conftest import Job, Project, make_planning, resolve_settings

RUNS = ("digits/mef/baseline/lambda=0/seed=0", "digits/mef/fpi/lambda=10000/seed=0")
ON_REAL = "digits/no_flow/seed=0/resnet18/augmentation=standard"
REFERENCE: set[Job] = {("train-classifier", f"{ON_REAL}/trained")}
TESTED: set[Job] = {("test-classifier", ON_REAL)}
MEASURED: set[Job] = {("measure-samples", f"{run}/resnet18/augmentation=standard") for run in RUNS}
ROW = {"dataset": "digits", "lambdas": [0, 1e4]}


def make_table(*metrics: str) -> dict[str, Any]:
    alone = {"dataset": "digits", "lambdas": [0], "classifier": None, "label": "flow"}
    return {"tables": {"mine": {"metrics": ["nf_acc", *metrics], "experiments": [ROW, alone]}}}


def test_the_reference_is_trained_once_for_all_rows(fresh_project: Project) -> None:
    plain, real, gan = (
        fresh_project.plan_jobs("mine", overlay=make_table(*metrics)) for metrics in ((), ("real_acc",), ("gan_test",))
    )
    assert real - plain == REFERENCE | TESTED
    assert gan - plain == REFERENCE | MEASURED
    assert not plain & (REFERENCE | TESTED | MEASURED)


def test_metrics_that_are_added_make_no_finished_run_again() -> None:
    metrics = (("cnn_acc",), ("cnn_acc", "real_acc", "gan_test"))
    before, after = (make_planning(**make_table(*names)).keys for names in metrics)
    run = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "10000", "seed": "0"}
    for stage, wildcards in ((Evaluate, run), (TestClassifier, run | {"classifier": "resnet18"})):
        job = jobs.Job.of(stage, wildcards)
        assert before.of(job) == after.of(job) is not None


@pytest.mark.parametrize(
    ("source", "augmentation", "is_claimed"),
    [("no_flow", "standard", True), ("mef/fpi/lambda=10000", "nfa", True), ("mef/fpi/lambda=10000", "standard", False)],
)
def test_the_rule_of_classifiers_of_real_images_claims_no_measured_samples(source, augmentation, is_claimed) -> None:
    """Else it would call them outdated, as they have not the key of its stage."""
    constraints = Patterns(resolve_settings().config).wildcard_constraints()
    constrained = re.sub(r"{(\w+)}", lambda name: f"{{{name[1]},{constraints[name[1]]}}}", REAL_CLASSIFIER)
    file = f"digits/{source}/seed=0/resnet18/augmentation={augmentation}/metrics.json"
    assert bool(re.match(regex_from_filepattern(f"{constrained}/metrics.json"), file)) == is_claimed


def test_the_reference_has_the_settings_of_the_classifier_and_the_updates_on_generated_images() -> None:
    planned = Planned(resolve_settings(generation={"per_class": 7}, classifiers={"resnet18": {"keep": False}}).config)
    run = Run.from_wildcards({"dataset": "digits", "seed": "0", "classifier": "resnet18", "augmentation": "standard"})
    reference = TrainClassifier.plan(planned, run.wildcards)
    flow = {"flow": "mef", "prior": "fpi", "weight": "10000", "temperature": "1"}
    generated = TrainClassifier.plan(planned, {**flow, "dataset": "digits", "seed": "0", "classifier": "resnet18"})
    assert reference.images_per_class == 7
    assert reference.classifier == generated.classifier.model_copy(update={"train_on": "real", "keep": True})
    assert "images_per_class" not in generated.declaration
    assert TestClassifier.plan(planned, run.wildcards).metrics == []


def test_samples_are_measured_by_what_tables_name_of_them() -> None:
    settings = make_table("fid_resnet18", "gan_test", "real_acc")
    planned = Planned(resolve_settings(**settings).config)
    run = Run(
        **{"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": 1e4, "seed": 0},
        **{"classifier": "resnet18", "augmentation": "standard"},
    )
    stage = MeasureSamples.plan(planned, run.wildcards)
    assert stage.metrics == ["fid_resnet18", "gan_test"]
    assert stage.networks == ["resnet18"]
    assert stage.identity == run.to_json()
