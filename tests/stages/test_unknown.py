"""Images of another data set are told from test images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nfpi import ClassConditionalFlow
from nfpi.data.store import convert_images, read_image_set
from nfpi.data.writer import write_image_set
from nfpi.results.statistics.detection import Typicality, compute_auroc

from .conftest import call, check_call, format_options, read_error_line, read_json

NAMES = {f"{name}_{score}" for name in ("auroc", "fpr95") for score in ("confidence", "density", "typicality")}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Colour images of noise, of another size and other classes, as made by prepare-data from image folders."""
    folder = tmp_path_factory.mktemp("noise")
    images = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
    write_image_set(folder / "test", images, np.arange(30) % 3, ["a", "b", "c"], name="noise", flip=False)
    return folder


def test_noise_is_told_from_digits(complete_run, noise, tmp_path):
    check_call(*complete_run.make_command("evaluate", unknown=noise, output=tmp_path))
    known, found = (read_json(folder / "metrics.json")["metrics"] for folder in (complete_run.folder, tmp_path))
    assert found.keys() == known.keys() | NAMES
    assert all(found[name] == known[name] for name in known if "second" not in name)
    assert found["auroc_density"] > 95
    model, splits = ClassConditionalFlow.from_pretrained(complete_run.model), complete_run.splits
    test, validation = (read_image_set(splits / split) for split in ("test", "validation"))
    converted = convert_images(read_image_set(noise / "test"), test.shape)
    assert converted.shape == (1, 8, 8)
    typicality = Typicality.from_validation(model.measure(validation.images)[1])
    scores = [typicality.measure(model.measure(images.images)[1]) for images in (test, converted)]
    assert found["auroc_typicality"] == pytest.approx(compute_auroc(*scores), abs=3)  # other noise in each image


def test_unknown_data_of_another_kind_is_refused_in_one_line(complete_run, tmp_path, capsys):
    vectors = np.zeros((4, 1, 1, 5), np.float32)
    write_image_set(tmp_path / "vectors/test", vectors, np.arange(4) % 2, ["a", "b"], name="vectors", flip=False)
    assert call(*complete_run.make_command("evaluate", unknown=tmp_path / "vectors", output=tmp_path / "new")) == 1
    assert "evaluation.unknown: expected uint8 data" in (line := read_error_line(capsys))
    assert "received float32" in line


def test_the_other_data_set_is_verified_and_recorded_but_not_compared(complete_run, tmp_path, capsys):
    other = tmp_path / "other"
    check_call(*complete_run.make_command("prepare-data", dataset={"split_seed": 9}, output=other))
    check_call(*complete_run.make_command("evaluate", unknown=other, output=tmp_path / "new"))
    manifest = read_json(tmp_path / "new/metrics.manifest.json")
    inputs = {item["name"]: item for item in manifest["inputs"]}
    for name, folder in (("unknown", other), ("data", complete_run.splits)):
        assert inputs[name]["content"] == read_json(folder / "data.manifest.json")["content"]
    meta = json.loads((other / "test/meta.json").read_text())
    (other / "test/meta.json").write_text(json.dumps(meta | {"name": "changed"}))
    assert call(*complete_run.make_command("evaluate", unknown=other, output=tmp_path / "again")) == 1
    assert "meta.json" in read_error_line(capsys)


def test_a_classifier_tells_them_by_its_margin(complete_run, noise, tmp_path):
    lda = {"model": "lda", "train_on": "real", "epochs": 0}
    options = {"data": complete_run.splits, "classifier": lda, "name": "lda", "augmentation": "none", "seed": 3}
    check_call("train-classifier", *format_options(**options, output=tmp_path / "lda"))
    check_call(
        "test-classifier",
        tmp_path / "lda",
        *format_options(data=complete_run.splits, unknown=noise, output=tmp_path / "test"),
    )
    found = read_json(tmp_path / "test/metrics.json")["metrics"]
    assert found.keys() & NAMES == {"auroc_confidence", "fpr95_confidence"}
    assert found["top1"] > 80
