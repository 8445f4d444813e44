"""The work of a preset: equal batches of each kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from nfpi.checks.work import Images, count_images, list_work
from nfpi.config.resolution import resolve
from nfpi.config.settings import Config

from .conftest import ROOT, only_table


def resolve_preset(preset: str = "demo", **settings: Any) -> Config:
    return resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset, **settings}).config


def test_the_work_of_preset_paper_is_what_its_settings_say():
    config = resolve_preset("paper")
    assert Images.of(config.datasets["imagenet"]).shape == (4, 32, 32)
    work = list_work(config)
    glow = [w.batches for w in work if w.stage == "train_flow" and w.kind == "flow_step" and w.subject == "glow"]
    assert glow == [499 * 93] * 2  # λ = 0 and 3e5; 47 500 images in batches of 512
    swin = [w.batches for w in work if w.kind == "classifier_step" and w.subject == "swin"]
    assert len(swin) == 8
    assert set(swin) == {1000 * 557}  # 3 · 47 500 images in batches of 256
    assert {w.kind for w in work if not w.subject} == {"vae_encode", "vae_decode"}


@pytest.mark.parametrize(
    ("preset", "dataset", "changes", "sizes"),
    [
        ("demo", "digits", {}, (1150, 288, 359)),  # a source without a test split
        ("paper", "cifar10_500", {}, (5000, 2500, 10000)),
        ("paper", "cifar10_all", {}, (50000, 0, 10000)),  # `refit`: nothing is held out for validation
        ("paper", "cifar10", {"test_per_class": 30}, (47500, 2500, 300)),
    ],
)
def test_held_out_and_kept_images_are_those_of_the_settings(preset, dataset, changes, sizes):
    found = Images.of(resolve_preset(preset).datasets[dataset].model_copy(update=changes))
    assert (found.train, found.validation, found.test) == sizes


def test_some_classes_of_a_source_have_their_share_of_its_images():
    found = Images.of(resolve_preset("digits").datasets["digits_0_to_7"])
    assert (found.train + found.validation + found.test, found.classes) == (round(0.8 * 1797), 8)


def test_the_work_on_prepared_data_is_that_of_their_sizes():
    config = resolve_preset()
    own = config.for_dataset("digits")
    prepared = replace(Images.of(config.datasets["digits"]), train=70, validation=20, test=11, classes=3)
    found = {(one.kind, one.subject): one for one in list_work(config, {"digits": prepared}) if one.stage != "augment"}
    assert {one.classes for one in found.values()} == {3}
    drawn = own.generation.per_class * 3
    assert found["flow_inverse", "mef"].batches == -(-drawn // own.generation.batch_size)
    resnet = own.classifiers["resnet18"]
    steps = -(-resnet.repeats * drawn // resnet.batch_size)
    assert found["classifier_step", "resnet18"].batches == resnet.epochs * steps
    swin = own.classifiers["swin"]
    assert found["classifier_step", "swin"].batches == swin.epochs * -(-swin.repeats * 70 // swin.batch_size)
    assert found["classifier_forward", "swin"].batches == -(-(20 + 11) // swin.batch_size)


def test_each_kind_of_variants_of_a_flow_is_work():
    rows = [
        {"dataset": "digits", "classifier": "swin", "augmentation": augmentation, "lambdas": [1]}
        for augmentation in ("nfa", "standard+nfa", "noise")
    ]
    config = resolve_preset(**only_table(["top1"], *rows))
    kinds = [one.kind for one in list_work(config) if one.stage == "augment"]
    assert sorted(kinds) == ["flow_forward"] * 2 + ["flow_inverse"] * 2


def test_a_classifier_that_another_one_fine_tunes_is_part_of_the_work():
    row = {"dataset": "digits", "classifier": "eva02", "augmentation": "standard+nfa", "lambdas": [0, 1]}
    config = resolve_preset(**only_table(["top1"], row))
    work = list_work(config)
    trained = [one.subject for one in work if one.kind == "classifier_step"]
    assert trained == [*["eva02"] * 2 * len(config.seeds), *["eva02_pretrained"] * len(config.seeds)]
    known = Images.of(config.datasets["digits"])
    scored = {one.subject: one.batches * one.batch for one in work if one.kind == "classifier_forward"}
    batch = config.for_dataset("digits").classifiers["eva02"].batch_size
    assert 0 <= scored["eva02"] - (known.validation + known.test) < batch
    assert 0 <= scored["eva02_pretrained"] - known.validation < batch


@pytest.mark.parametrize(("every", "evaluations"), [(5, [0, 8]), (3, [0, 14]), (50, [0, 1]), (1, [1, 39])])
def test_validation_is_due_at_multiples_and_after_the_last_of_40_epochs(every, evaluations):
    row = {"dataset": "digits", "lambdas": [1e3], "classifier": None}
    config = resolve_preset(**only_table(["nf_acc"], row))
    block = config.datasets["digits"].model_copy(update={"overrides": {}})
    training = config.training.model_copy(
        update={"epochs": 40, "evaluate_every": every, "batch_size": 1, "initialization_images": 1}
    )
    config = config.model_copy(update={"training": training, "datasets": {"digits": block}})
    sizes = {"digits": replace(Images.of(block), train=0, validation=1000)}
    work = {one.stage: one.batches for one in list_work(config, sizes) if one.kind == "flow_forward"}
    assert [work["start_flow"] // 1000, work["train_flow"] // 1000] == evaluations


def test_a_source_of_known_size_keeps_it_whatever_image_size_says():
    digits = resolve_preset().datasets["digits"]
    folder = digits.model_copy(update={"source": "imagefolder", "image_size": 64})
    assert Images.of(digits.model_copy(update={"image_size": 64})).shape == (1, 8, 8)
    assert Images.of(folder).shape == (3, 64, 64)


def test_images_of_classes_that_are_left_out_take_no_time(tmp_path):
    for name in ("ape", "bee", "cow", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10 if name != "dog" else 1):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name / f"{number}.png")
    pets = {"source": "imagefolder", "folder": str(tmp_path), "only_classes": ["cow", "ape"]}
    pets |= {"shape": [8, 8, 3], "validation_fraction": 0.2}
    images = count_images(resolve_preset(datasets={"pets": pets}), "pets")
    assert (images.train + images.validation + images.test, images.classes) == (20, 2)
