"""What rules depend on, as functions of their wildcards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nfpi.workflow import Inputs

from .conftest import make_plan

RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "0"}
FOLDER = "results/demo/digits/mef/fpi/lambda=1000/seed=0"
OF_REAL = {"dataset": "digits", "source": "no_flow", "seed": "0", "classifier": "eva02", "augmentation": "none"}
IMAGE_SET = ("images.npy", "labels.npy", "meta.json")


def make_inputs(preset: str = "demo", **overrides: Any) -> Inputs:
    return Inputs(make_plan(preset, **overrides))


def fits(constraints: Mapping[str, str], wildcards: Mapping[str, str]) -> bool:
    return all(re.fullmatch(constraints[name], value) for name, value in wildcards.items())


@pytest.mark.parametrize("preset", ["demo", "paper"])
def test_wildcards_may_be_what_runs_have(preset: str) -> None:
    inputs = make_inputs(preset)
    constraints, config = inputs.wildcard_constraints(), inputs.plan.config
    for _, experiment in config.iterate_experiments():
        for weight in experiment.weights or [None]:
            for pair in config.list_runs(experiment, weight):
                for run in filter(None, pair):
                    assert fits(constraints, run.wildcards), run


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "digit"),
        ("dataset", "digitsX"),
        ("flow", "initial"),
        ("flow", "no_flow"),
        ("prior", "initial"),
        ("weight", "e5"),
        ("weight", "-1"),
        ("weight", "nan"),
        ("seed", "01"),
        ("seed", "-1"),
        ("start", "baseline"),
        ("source", "mef/fpi"),
        ("source", "mef/fpi/lambda="),
        ("augmentation", "nfa+standard"),
        ("classifier", "model"),
        ("table", "table99"),
    ],
)
def test_wildcards_may_be_nothing_else(name: str, value: str) -> None:
    assert not fits(make_inputs().wildcard_constraints(), {name: value})


def test_names_are_taken_literally_and_none_fits_where_there_are_none() -> None:
    constraints = make_inputs(tables={"a.b": {"experiments": [{"dataset": "digits", "lambdas": [0]}]}})
    assert not fits(constraints.wildcard_constraints(), {"table": "aXb"})
    assert not re.fullmatch(make_inputs().dataset_pattern(encoded=True), "")


def test_a_data_set_is_prepared_or_encoded() -> None:
    inputs = make_inputs("paper")
    assert re.fullmatch(inputs.dataset_pattern(encoded=True), "imagenet")
    assert not re.fullmatch(inputs.dataset_pattern(encoded=True), "cifar10")
    assert re.fullmatch(inputs.dataset_pattern(encoded=False), "cifar10")
    assert not re.fullmatch(inputs.dataset_pattern(encoded=False), "imagenet")


@pytest.mark.parametrize(
    ("prior", "fitted", "learned", "begins_with"),
    [
        ("fpi", True, False, f"{FOLDER}/fit/prior.safetensors"),
        ("nfgd_linear", False, True, "results/demo/digits/mef/initial/data/seed=0/prior.safetensors"),
        ("gmm", False, True, "results/demo/digits/mef/initial/random/seed=0/prior.safetensors"),
        ("baseline", False, False, "results/demo/digits/mef/initial/data/seed=0/prior.safetensors"),
        ("baseline-identity", False, False, "results/demo/digits/mef/initial/identity/seed=0/prior.safetensors"),
    ],
)
def test_gaussians_are_fitted_or_learned_or_kept(prior: str, fitted: bool, learned: bool, begins_with: str) -> None:
    inputs = make_inputs()
    assert (inputs.plan.config.is_fitted(prior), inputs.plan.config.is_learned(prior)) == (fitted, learned)
    assert bool(re.fullmatch(inputs.fitted_prior_pattern(), prior)) is fitted
    assert inputs.prior_of_training("prior")(RUN | {"prior": prior}) == begins_with


def test_one_classifier_is_chosen_from_one_for_each_temperature() -> None:
    inputs = make_inputs(
        generation={"temperatures": [0.7, 1, 1.0, "1e0"]},
        datasets={"cifar10": {"overrides": {"generation": {"temperatures": [2]}}}},
    )
    wildcards = RUN | {"classifier": "resnet18"}
    folders = [f"{FOLDER}/resnet18/temperature={temperature}" for temperature in ("0.7", "1")]
    assert inputs.candidate_folders(wildcards) == folders
    assert inputs.candidate_files("metrics")(wildcards) == [f"{folder}/metrics.json" for folder in folders]
    (of_cifar10,) = inputs.candidate_folders(wildcards | {"dataset": "cifar10"})
    assert of_cifar10.endswith("temperature=2")


def test_a_classifier_sees_variants_of_its_flow_where_its_augmentation_has_some() -> None:
    inputs = make_inputs()
    assert inputs.augmented_images(OF_REAL) == []
    of_augmentations = {"nfa": "augmented", "standard+nfa": "augmented"}
    of_augmentations |= {"noise": "augmented_noise", "standard+noise": "augmented_noise"}
    for augmentation, folder in of_augmentations.items():
        wildcards = OF_REAL | {"source": "mef/fpi/lambda=1000", "augmentation": augmentation}
        files = (*IMAGE_SET, "augmented-images.manifest.json")
        assert inputs.augmented_images(wildcards) == [f"{FOLDER}/{folder}/{file}" for file in files]


def test_a_classifier_is_fine_tuned_from_the_one_that_it_names() -> None:
    inputs = make_inputs()
    folder = "results/demo/digits/no_flow/seed=0/eva02_pretrained/augmentation=none/trained"
    trained = [f"{folder}/{file}" for file in ("model.safetensors", "classifier.manifest.json")]
    for source in ("no_flow", "mef/fpi/lambda=1000"):
        assert inputs.weights_to_fine_tune(OF_REAL | {"source": source}) == trained
    assert inputs.weights_to_fine_tune(OF_REAL | {"classifier": "swin"}) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["results/downloads/eva02.safetensors"]),
        ({"weights": "/mine.safetensors"}, ["/mine.safetensors"]),
        ({"weights": "weights/mine.safetensors"}, ["weights/mine.safetensors"]),
        ({"weights": "mine.safetensors"}, [f"{Path.cwd()}/mine.safetensors"]),
        ({"pretrained": False}, []),
    ],
)
def test_published_weights_are_downloaded_unless_the_user_has_some(settings: Any, expected: list[str]) -> None:
    inputs = make_inputs("paper", classifiers={"eva02_pretrained": settings})
    wildcards = OF_REAL | {"dataset": "imagenet", "classifier": "eva02_pretrained"}
    assert inputs.published_weights(wildcards) == expected


def test_images_of_another_data_set_are_those_that_the_evaluation_names() -> None:
    inputs = make_inputs(
        evaluation={"unknown": "fashion_mnist"}, datasets={"cifar10": {"overrides": {"evaluation": {"unknown": None}}}}
    )
    folder = "results/demo/fashion_mnist/splits"
    files = [*(f"{folder}/test/{file}" for file in IMAGE_SET), f"{folder}/data.manifest.json"]
    for wildcards in (RUN, OF_REAL):
        assert inputs.unknown_images(wildcards) == files
        assert inputs.options_of_unknown(wildcards) == ["--unknown", folder]
    assert inputs.unknown_images(RUN | {"dataset": "cifar10"}) == []
    assert make_inputs().options_of_unknown(RUN) == []
    with pytest.raises(ValueError, match=r"evaluation\.unknown: unknown dataset 'fashion'"):
        make_inputs(evaluation={"unknown": "fashion"})
