"""The trainings of a preset."""

from __future__ import annotations

from typing import Any

import pytest

from nfpi.checks.work import Images, list_work
from nfpi.config.resolution import resolve
from nfpi.config.settings import Config

from .conftest import ROOT, only_table


def resolve_preset(preset: str = "demo", **settings: Any) -> Config:
    return resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset, **settings}).config


def test_the_work_of_preset_paper_is_what_its_settings_say():
    config = resolve_preset("paper")
    known = {name: sizes for name, block in config.datasets.items() if (sizes := Images.of(block)) is not None}
    assert "imagenet" not in known
    work = list_work(config, known | {"imagenet": Images(1_281_167, 1000, (4, 32, 32))})
    assert [w.steps for w in work if w.subject == "glow"] == [499 * 93] * 2  # λ = 0 and 3e5; 47 500 in batches of 512
    swin = [w.steps for w in work if w.subject == "swin"]
    assert len(swin) == 8
    assert set(swin) == {1000 * 557}  # 3 · 47 500 images in batches of 256
    assert {(w.shape, w.classes) for w in work if w.subject == "eva02"} == {((3, 448, 448), 1000)}


@pytest.mark.parametrize(
    ("preset", "dataset", "train", "classes"),
    [
        ("demo", "digits", 1150, 10),  # a source without a test split
        ("digits", "digits_0_to_7", 920, 8),  # eight tenths of the images
        ("paper", "cifar10_500", 5000, 10),
        ("paper", "cifar10_all", 50000, 10),  # `refit`: nothing is held out for validation
    ],
)
def test_the_number_of_training_images_is_that_of_the_settings(preset, dataset, train, classes):
    found = Images.of(resolve_preset(preset).datasets[dataset])
    assert (found.train, found.classes) == (train, classes)


def test_the_work_on_prepared_data_is_that_of_their_sizes():
    config = resolve_preset()
    own = config.for_dataset("digits")
    found = {one.subject: one for one in list_work(config, {"digits": Images(70, 3, (1, 8, 8))})}
    assert {one.classes for one in found.values()} == {3}
    resnet, swin = own.classifiers["resnet18"], own.classifiers["swin"]
    assert found["resnet18"].steps == resnet.epochs * -(
        -resnet.repeats * own.generation.per_class * 3 // resnet.batch_size
    )
    assert found["swin"].steps == swin.epochs * -(-swin.repeats * 70 // swin.batch_size)


def test_a_classifier_that_another_one_fine_tunes_is_part_of_the_work():
    row = {"dataset": "digits", "classifier": "eva02", "augmentation": "standard+nfa", "lambdas": [0, 1]}
    config = resolve_preset(**only_table(["top1"], row))
    work = list_work(config, {"digits": Images.of(config.datasets["digits"])})
    trained = [one.subject for one in work if one.stage == "train_classifier"]
    assert trained == [*["eva02"] * 2 * len(config.seeds), *["eva02_pretrained"] * len(config.seeds)]
