"""What rules depend on, as functions of their wildcards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nfpi.stages.base import Stage
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.test_classifier import TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import StartFlow, TrainFlow
from nfpi.workflow import Planning

from .conftest import make_planning

RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "0"}
FOLDER = "results/demo/digits/mef/fpi/lambda=1000/seed=0"
OF_REAL = {"dataset": "digits", "source": "no_flow", "seed": "0", "classifier": "eva02", "augmentation": "none"}
IMAGE_SET = ("images.npy", "labels.npy", "meta.json")


def read_paths(planning: Planning, stage: type[Stage], wildcards: dict[str, str]) -> dict[str, str]:
    """Return the options of a command that name paths; those without a name are under `output`, after the folder."""
    words = planning.params(stage)["paths"](wildcards)
    return dict(zip(words[::2], words[1::2], strict=True))


def test_splits_are_those_of_the_data_set_or_of_the_seed() -> None:
    files = make_planning().inputs(StartFlow)(RUN | {"start": "data"})["data"]
    splits = "results/demo/digits/splits"
    assert set(files) > {f"{splits}/train/{file}" for file in IMAGE_SET} | {f"{splits}/data.manifest.json"}
    own = make_planning(datasets={"digits": {"split_seed": "per_seed"}})
    for seed in ("0", "7"):
        (folder,) = {
            file.split("/test/")[0] for file in own.inputs(Evaluate)(RUN | {"seed": seed})["data"] if "/test/" in file
        }
        assert folder == f"results/demo/digits/splits/seed={seed}"
        assert own.resolved.config.get_dataset("digits", f"splits/seed={seed}").split_seed == int(seed)


@pytest.mark.parametrize(
    ("prior", "begins_with"),
    [
        ("fpi", f"{FOLDER}/fit/prior.safetensors"),
        ("nfgd_linear", "results/demo/digits/mef/initial/data/seed=0/prior.safetensors"),
        ("gmm", "results/demo/digits/mef/initial/random/seed=0/prior.safetensors"),
        ("baseline", "results/demo/digits/mef/initial/data/seed=0/prior.safetensors"),
        ("baseline-identity", "results/demo/digits/mef/initial/identity/seed=0/prior.safetensors"),
    ],
)
def test_gaussians_are_fitted_or_learned_or_kept(prior: str, begins_with: str) -> None:
    planning = make_planning()
    assert read_paths(planning, TrainFlow, RUN | {"prior": prior})["--prior"] == begins_with
    assert begins_with in planning.inputs(TrainFlow)(RUN | {"prior": prior})["prior"]


def test_one_classifier_is_chosen_from_one_for_each_temperature() -> None:
    planning = make_planning(
        generation={"temperatures": [0.7, 1, 1.0, "1e0"]},
        datasets={"cifar10": {"overrides": {"generation": {"temperatures": [2]}}}},
    )
    wildcards = RUN | {"classifier": "resnet18"}
    folders = [f"{FOLDER}/resnet18/temperature={temperature}" for temperature in ("0.7", "1")]
    assert planning.params(TestClassifier)["paths"](wildcards)[2:4] == folders
    assert {Path(file).parent.as_posix() for file in planning.inputs(TestClassifier)(wildcards)["candidates"]} == {
        *folders
    }
    (of_cifar10,) = planning.params(TestClassifier)["paths"](wildcards | {"dataset": "cifar10"})[2:-2]
    assert of_cifar10.endswith("temperature=2")


def test_a_classifier_sees_variants_of_its_flow_where_its_augmentation_has_some() -> None:
    planning = make_planning()
    assert "augmented" not in planning.inputs(TrainClassifier)(OF_REAL)
    of_augmentations = {"nfa": "augmented", "standard+nfa": "augmented"}
    of_augmentations |= {"noise": "augmented_noise", "standard+noise": "augmented_noise"}
    for augmentation, folder in of_augmentations.items():
        wildcards = OF_REAL | {"source": "mef/fpi/lambda=1000", "augmentation": augmentation}
        files = (*IMAGE_SET, "augmented-images.manifest.json")
        assert planning.inputs(TrainClassifier)(wildcards)["augmented"] == [
            f"{FOLDER}/{folder}/{file}" for file in files
        ]
        assert read_paths(planning, TrainClassifier, wildcards)["--augmented"] == f"{FOLDER}/{folder}"


def test_a_classifier_is_fine_tuned_from_the_one_that_it_names() -> None:
    planning = make_planning()
    trained = "results/demo/digits/no_flow/seed=0/eva02_pretrained/augmentation=none/trained/model.safetensors"
    for source in ("no_flow", "mef/fpi/lambda=1000"):
        assert trained in planning.inputs(TrainClassifier)(OF_REAL | {"source": source})["start_from"]
        assert read_paths(planning, TrainClassifier, OF_REAL | {"source": source})["--start-from"] == trained
    assert "start_from" not in planning.inputs(TrainClassifier)(OF_REAL | {"classifier": "swin"})


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "results/downloads/eva02.safetensors"),
        ({"weights": "{folder}/mine.safetensors"}, "{folder}/mine.safetensors"),
        ({"weights": "weights/mine.safetensors"}, "weights/mine.safetensors"),
        ({"weights": "mine.safetensors"}, "{folder}/mine.safetensors"),
        ({"pretrained": False}, None),
    ],
)
def test_published_weights_are_downloaded_unless_the_user_has_some(
    settings: Any, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    for folder in ("weights", "."):
        (tmp_path / folder / "mine.safetensors").touch()
    settings = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value for name, value in settings.items()
    }
    planning = make_planning("paper", classifiers={"eva02_pretrained": settings})
    wildcards = OF_REAL | {"dataset": "imagenet", "classifier": "eva02_pretrained"}
    named = read_paths(planning, TrainClassifier, wildcards).get("--classifier.weights")
    assert named == (None if expected is None else expected.format(folder=tmp_path))
    assert (named in planning.inputs(TrainClassifier)(wildcards).get("weights", [])) == (named is not None)


def test_images_of_another_data_set_are_those_that_the_evaluation_names() -> None:
    planning = make_planning(
        evaluation={"unknown": "fashion_mnist"}, datasets={"cifar10": {"overrides": {"evaluation": {"unknown": None}}}}
    )
    folder = "results/demo/fashion_mnist/splits"
    for stage, wildcards in ((Evaluate, RUN), (TestClassifier, OF_REAL)):
        assert f"{folder}/test/images.npy" in planning.inputs(stage)(wildcards)["unknown"]
        words = planning.params(stage)["paths"](wildcards)
        assert words[words.index("--unknown") + 1] == folder
    assert "unknown" not in planning.inputs(Evaluate)(RUN | {"dataset": "cifar10"})
    assert "unknown" not in make_planning().inputs(Evaluate)(RUN)
    with pytest.raises(ValueError, match=r"evaluation\.unknown: unknown dataset 'fashion'"):
        make_planning(evaluation={"unknown": "fashion"})
