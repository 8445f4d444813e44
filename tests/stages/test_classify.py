"""The stages of the classifiers by hand, on image sets that are written on the spot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from nfpi.data.writer import ImageSetWriter, write_image_set
from nfpi.results.recorded.predictions import read_predictions
from nfpi.runtime.device import make_device
from nfpi.runtime.manifests import read_manifest
from nfpi.runtime.tensors import load_tensors
from nfpi.stages import execution

from .conftest import STAGE, call, format_options, list_files, read_error_line, read_json

SWIN = {
    "model": "swin",
    "architecture": {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]},
    "epochs": 2,
    "batch_size": 16,
    "optimizer": "adamw",
    "schedule": "cosine",
    "learning_rate": 0.005,
    "standard": {"crop_padding": 1},
    "train_on": "real",
}
EVA02 = {"model": "eva02", "architecture": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}}
FILES = set(STAGE["train-classifier"].outputs.values())
TESTED = set(STAGE["test-classifier"].outputs.values())


def train(root: Path, output: Path, classifier: dict, **options: object) -> int:
    common = {"data": root / "splits", "name": "small", "seed": 3, "output": output}
    return call("train-classifier", *format_options(**common, classifier=classifier, **options))


def test(root: Path, output: Path, *candidates: Path, **options: object) -> int:
    return call("test-classifier", *candidates, *format_options(data=root / "splits", output=output, **options))


test.__test__ = False


def augmented_by(root: Path) -> dict[str, object]:
    """Options of a training whose images are replaced by variants half of the time."""
    return {"augmented": root / "augmented", "augmentation": "standard+nfa"}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "model.safetensors")[0]


def assert_same_weights(one: Path, other: Path) -> None:
    left, right = weights_of(one), weights_of(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value, right[name]), name


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, make_images) -> Path:
    """Splits, generated images at a temperature, and two variants of each training image."""
    root = tmp_path_factory.mktemp("classify")
    sets = {
        "splits/train": ("train", make_images((3, 8, 8)), {}),
        "splits/validation": ("validation", make_images((3, 8, 8), per_class=9, seed=1), {}),
        "splits/test": ("test", make_images((3, 8, 8), per_class=7, seed=2), {}),
        "generated": ("generated", make_images((3, 8, 8), seed=3, noise=40), {"temperature": 0.8}),
    }
    for folder, (split, images, extra) in sets.items():
        settings = {"name": "toy", "split": split, "flip": False, **extra}
        write_image_set(root / folder, images.images, images.labels, images.classes, **settings)
    train = sets["splits/train"][1]
    variants, labels = np.repeat(train.images, 2, axis=0) // 2, np.repeat(train.labels, 2)
    write_image_set(root / "augmented", variants, labels, train.classes, name="toy", flip=False, variants=2)
    return root


# ---- real, generated, augmented -----------------------------------------------------------------------------


def test_of_real_images_top1_and_top5_are_tested(root, tmp_path):
    assert train(root, tmp_path / "real", SWIN) == 0
    assert list_files(tmp_path / "real") == FILES
    trained = read_json(tmp_path / "real/metrics.json")
    assert set(trained["metrics"]) == {"validation_top1"}
    assert trained["n"] == 27
    assert trained["settings"]["images"] == 60
    assert pd.read_csv(tmp_path / "real/log.csv")["epoch"].tolist() == [1, 2]
    assert test(root, tmp_path / "test", tmp_path / "real") == 0
    tested = read_json(tmp_path / "test/metrics.json")
    assert tested["metrics"]["top5"] == 100  # three classes
    assert tested["metrics"]["validation_top1"] == trained["metrics"]["validation_top1"]
    assert (tested["n"], tested["settings"]["name"]) == (21, "small")
    predictions = read_predictions(tmp_path / "test/predictions.npz")
    assert predictions.class_log_prob.shape == (21, 3)
    assert 100 * (predictions.predicted == predictions.label).mean() == pytest.approx(tested["metrics"]["top1"])


def test_images_are_normalised_by_the_training_images_in_training_and_test(root, tmp_path):
    """The test reads mean and standard deviation from the classifier's file, so both measure the same accuracy."""
    settings = {**SWIN, "normalization": "dataset", "repeats": 2, "epochs": 3}
    assert train(root, tmp_path / "real", settings) == 0
    header = load_tensors(tmp_path / "real/model.safetensors")[1]
    pixels = np.load(root / "splits/train/images.npy") / 255
    assert header["normalization"]["mean"] == pytest.approx(pixels.mean((0, 1, 2)).tolist())
    assert header["normalization"]["std"] == pytest.approx(pixels.std((0, 1, 2)).tolist())
    validation = tmp_path / "splits"
    validation.mkdir()
    for split in ("validation", "test"):
        (validation / split).symlink_to(root / "splits/validation")
    assert test(tmp_path, tmp_path / "test", tmp_path / "real") == 0
    tested = read_json(tmp_path / "test/metrics.json")["metrics"]
    assert tested["top1"] == tested["validation_top1"]


def test_weights_that_are_not_kept_go_when_the_classifier_was_tested(root, tmp_path, capsys):
    generated = {**SWIN, "train_on": "generated"}
    for name, settings in {"kept": generated, "not": {**generated, "keep": False}}.items():
        for temperature in ("1", "2"):
            assert train(root, tmp_path / name / temperature, settings, generated=root / "generated") == 0
            assert list_files(tmp_path / name / temperature) == FILES
        candidates = [tmp_path / name / temperature for temperature in ("1", "2")]
        assert test(root, tmp_path / name / "test", *candidates) == 0
    assert list_files(tmp_path / "kept/1") == FILES
    for temperature in ("1", "2"):
        assert list_files(tmp_path / "not" / temperature) == FILES - {"model.safetensors"}
    assert (tmp_path / "kept/test/predictions.npz").read_bytes() == (tmp_path / "not/test/predictions.npz").read_bytes()
    assert call("verify", tmp_path / "not") == 0
    assert call("verify", tmp_path / "kept") == 0
    capsys.readouterr()
    assert test(root, tmp_path / "again", *candidates) == 1
    assert "model.safetensors: " in read_error_line(capsys)


def test_a_job_that_waited_accepts_a_test_that_has_removed_the_weights(root, tmp_path, monkeypatch, caplog):
    """The other process removes weights that are not kept while it still holds the lock."""
    settings = {**SWIN, "train_on": "generated", "keep": False}
    assert train(root, tmp_path / "1", settings, generated=root / "generated") == 0
    shutil.copytree(tmp_path / "1", tmp_path / "copy/1")
    assert test(root, tmp_path / "copy/test", tmp_path / "copy/1") == 0
    key = read_manifest(tmp_path / "copy/test/metrics.manifest.json").key
    locked = execution.locked

    @contextmanager
    def locked_after_another(path, name, announce):
        monkeypatch.setattr(execution, "locked", locked)
        assert test(root, tmp_path / "test", tmp_path / "1") == 0
        with locked(path, name, announce):
            yield True

    monkeypatch.setattr(execution, "writes_log", lambda: True)
    monkeypatch.setattr(execution, "locked", locked_after_another)
    with caplog.at_level("INFO"):
        assert test(root, tmp_path / "test", tmp_path / "1", key=key) == 0
    assert not (tmp_path / "1/model.safetensors").exists()
    assert "the other process has made it" in caplog.text


def test_of_generated_and_real_images_cnn_acc_is_tested(root, tmp_path):
    assert train(root, tmp_path / "0.8", {**SWIN, "train_on": "both"}, generated=root / "generated") == 0
    assert read_json(tmp_path / "0.8/metrics.json")["settings"]["images"] == 120
    assert test(root, tmp_path / "test", tmp_path / "0.8") == 0
    metrics = read_json(tmp_path / "test/metrics.json")["metrics"]
    assert {"cnn_acc", "validation_cnn_acc"} < metrics.keys()
    assert metrics["temperature"] == 0.8


@pytest.mark.parametrize(("augmentation", "without"), [("nfa", "none"), ("standard+nfa", "standard")])
def test_variants_stand_in_for_real_images(root, augmentation, without, tmp_path):
    options = {"augmented": root / "augmented", "augmentation": augmentation}
    assert train(root, tmp_path / "one", SWIN, **options) == 0
    assert read_json(tmp_path / "one/metrics.json")["settings"]["augmentation"] == augmentation
    assert train(root, tmp_path / "never", {**SWIN, "nfa_probability": 0}, **options) == 0
    assert train(root, tmp_path / "without", SWIN, augmentation=without) == 0
    assert_same_weights(tmp_path / "never", tmp_path / "without")
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "one", tmp_path / "without")


def test_a_classifier_is_fine_tuned_from_anothers_weights(root, tmp_path):
    assert train(root, tmp_path / "first", SWIN) == 0
    first = tmp_path / "first/model.safetensors"
    assert train(root, tmp_path / "as it is", {**SWIN, "epochs": 0}, start_from=first) == 0
    assert_same_weights(tmp_path / "first", tmp_path / "as it is")
    metrics = [read_json(tmp_path / name / "metrics.json")["metrics"] for name in ("first", "as it is")]
    assert metrics[0] == metrics[1]
    assert pd.read_csv(tmp_path / "as it is/log.csv").empty
    assert train(root, tmp_path / "tuned", {**SWIN, "epochs": 1}, start_from=first) == 0
    assert test(root, tmp_path / "test", tmp_path / "tuned") == 0


# ---- outcomes and faults ------------------------------------------------------------------------------------


def test_diverged_variants_are_the_result(root, diverged_images, tmp_path):
    assert train(root, tmp_path / "c", SWIN, augmentation="nfa", augmented=diverged_images) == 0
    assert list_files(tmp_path / "c") == FILES
    assert read_json(tmp_path / "c/metrics.json")["diverged"]["lambda"] == 1e6
    assert test(root, tmp_path / "test", tmp_path / "c") == 0
    assert list_files(tmp_path / "test") == TESTED
    assert read_json(tmp_path / "test/metrics.json")["diverged"]["iteration"] == 3


def test_a_classifier_that_diverged_is_passed_over(root, tmp_path):
    bad, good = tmp_path / "bad", tmp_path / "good"
    assert train(root, bad, SWIN | {"learning_rate": 1e30, "epochs": 2, "schedule": "constant"}) == 0
    assert list_files(bad) == FILES
    assert read_json(bad / "metrics.json")["diverged"]["quantity"] == "loss of the classifier"
    assert train(root, good, SWIN) == 0
    assert test(root, tmp_path / "test", bad, good) == 0
    assert list(read_json(tmp_path / "test/metrics.json")["settings"]["compared"]) == ["good"]
    assert test(root, tmp_path / "none", bad) == 0
    assert "the loss is not finite by step" in read_json(tmp_path / "none/metrics.json")["diverged"]["message"]


@pytest.mark.parametrize(
    ("train_on", "folders", "augmentation", "named"),
    [
        ("generated", (), "standard", "--generated: "),
        ("both", (), "standard", "--generated: "),
        ("real", ("generated",), "standard", "--generated: "),
        ("both", ("generated", "augmented"), "standard", "--augmented: "),
        ("real", ("augmented",), "standard", "--augmented: "),
        ("real", (), "nfa", "--augmented: "),
    ],
)
def test_folders_that_contradict_the_settings_are_refused(
    root, train_on, folders, augmentation, named, tmp_path, capsys
):
    options = {folder: root / folder for folder in folders}
    assert train(root, tmp_path / "c", {**SWIN, "train_on": train_on}, augmentation=augmentation, **options) == 1
    assert named in read_error_line(capsys)
    assert not (tmp_path / "c").exists()


def test_mixed_variants_are_no_noise(root, tmp_path, capsys):
    assert train(root, tmp_path / "c", SWIN, augmented=root / "augmented", augmentation="noise") == 1
    assert f"{root / 'augmented'}: " in read_error_line(capsys)


def test_weights_of_another_architecture_are_refused(root, tmp_path, capsys):
    assert train(root, tmp_path / "first", {**SWIN, "epochs": 0}) == 0
    first = tmp_path / "first/model.safetensors"
    assert train(root, tmp_path / "c", {**SWIN, **EVA02}, start_from=first) == 1
    assert "model.safetensors: " in read_error_line(capsys)


# ---- a training that is cut ---------------------------------------------------------------------------------


def cut_at_step_3(
    root: Path, output: Path, monkeypatch: pytest.MonkeyPatch, cut_after: Callable[..., list[int]]
) -> None:
    with monkeypatch.context() as patch:
        cut_after(patch, 3)
        assert train(root, output, {**SWIN, "checkpoint_minutes": 1e-9}, **augmented_by(root)) == 130
    assert all(file.name.startswith(".checkpoint-") for file in output.iterdir())


@pytest.mark.parametrize(
    ("change", "is_augmented", "first"),
    [({"learning_rate": 0.004}, True, 1), ({}, False, 1), ({"workers": 1}, True, 4)],
    ids=["settings", "images", "how it is run"],
)
def test_a_checkpoint_of_other_settings_or_images_is_not_used(
    root, change, is_augmented, first, tmp_path, monkeypatch, cut_after
):
    cut_at_step_3(root, tmp_path / "c", monkeypatch, cut_after)
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        options = augmented_by(root) if is_augmented else {}
        assert train(root, tmp_path / "c", {**SWIN, "checkpoint_minutes": 1e-9, **change}, **options) == 0
    assert made[0] == first


# ---- a data set whose flow sees latents ---------------------------------------------------------------------


@pytest.fixture
def of_latents(tmp_path: Path) -> Path:
    """Image files of several sizes, latents that stand for them (zeros), and variants of these."""
    generator = np.random.default_rng(0)
    classes = ImageNetInfo("imagenet-1k").label_names()[:2]
    labels = np.arange(12) % 2
    extra = {"flip": True, "image_folder": str(tmp_path / "files"), "vae": "vae", "scale": 2}
    for split in ("train", "validation", "test"):
        names = [f"{split}/{classes[k]}/ILSVRC2012_val_{i + 1:08d}.JPEG" for i, k in enumerate(labels)]
        for name, label in zip(names, labels, strict=True):
            (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            size = (int(generator.integers(20, 30)), int(generator.integers(20, 30)), 3)
            Image.fromarray(np.full(size, 60 + 120 * label, np.uint8)).save(tmp_path / "files" / name)
        settings = {"name": "toy", "split": split, "dtype": np.float16, "originals": names, **extra}
        with ImageSetWriter(tmp_path / "splits" / split, 12, (2, 2, 4), classes, **settings) as writer:
            writer.put(np.arange(12), np.zeros((12, 2, 2, 4), np.float16), labels)
    settings = {"name": "toy", "dtype": np.float16, "variants": 3, **extra}
    with ImageSetWriter(tmp_path / "augmented", 36, (2, 2, 4), classes, **settings) as writer:
        writer.put(np.arange(36), np.zeros((36, 2, 2, 4), np.float16), np.repeat(labels, 3))
    return tmp_path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many latents the decoder, which makes them grey, was asked for at a time."""
    asked: list[int] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        asked.append(len(latents))
        return torch.full((len(latents), 3, 16, 16), 128, dtype=torch.uint8)

    def load_decoder(meta: dict, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        assert (meta["extra"]["vae"], device.type) == ("vae", make_device().device.type)
        return decode

    monkeypatch.setattr("nfpi.data.autoencoder.load_decoder", load_decoder)
    return asked


def test_a_classifier_sees_files_and_decoded_variants(of_latents, decoded, tmp_path):
    settings = {**SWIN, **EVA02, "image_size": 8, "batch_size": 6, "epochs": 3}
    assert train(of_latents, tmp_path / "c", settings, **augmented_by(of_latents)) == 0
    assert 6 < sum(decoded) < 30  # of 36 images seen, half
    assert test(of_latents, tmp_path / "test", tmp_path / "c") == 0
    usual = set(read_json(tmp_path / "test/metrics.json")["metrics"])
    assert test(of_latents, tmp_path / "test", tmp_path / "c", real_labels=True) == 0
    assert set(read_json(tmp_path / "test/metrics.json")["metrics"]) == usual | {"real_top1", "real_top5"}


def test_files_need_a_size(of_latents, tmp_path, capsys):
    assert train(of_latents, tmp_path / "c", {**SWIN, **EVA02}) == 1
    assert "image_size: " in read_error_line(capsys)


def test_generated_latents_are_refused(of_latents, tmp_path, capsys):
    settings = {**SWIN, "train_on": "generated"}
    assert train(of_latents, tmp_path / "c", settings, generated=of_latents / "augmented") == 1
    assert "received latents" in read_error_line(capsys)
