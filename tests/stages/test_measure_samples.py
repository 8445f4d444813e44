"""Generated images measured by a classifier trained on real ones, and that classifier."""

from __future__ import annotations

import numpy as np
import pytest

from nfpi.results.recorded.predictions import read_predictions
from nfpi.runs import GENERATED

from .conftest import SmallRun, call, check_call, list_files, read_error_line, read_json


def test_gan_test_is_of_the_images_at_the_temperature_of_cnn_acc(complete_run: SmallRun):
    folder = complete_run.root / complete_run.measured.folder
    record = read_json(folder / "metrics.json")
    assert set(record["metrics"]) == {"gan_test", "saturated"}
    temperature = read_json(complete_run.root / complete_run.tested.folder / "metrics.json")["metrics"]["temperature"]
    assert record["settings"]["temperature"] == temperature
    generated = complete_run.locate_folder(GENERATED, temperature)
    predictions = read_predictions(folder / "predictions.npz")
    assert predictions.label.tolist() == np.load(generated / "labels.npy").tolist()
    assert record["n"] == len(predictions.label) == 40
    assert record["metrics"]["gan_test"] == pytest.approx(100 * predictions.is_correct.mean())
    images = np.load(generated / "images.npy")
    assert record["metrics"]["saturated"] == pytest.approx(100 * np.isin(images, (0, 255)).mean())


def test_the_reference_makes_as_many_updates_as_the_classifier_of_generated_images(complete_run: SmallRun, tmp_path):
    reference = read_json(complete_run.reference / "metrics.json")["settings"]
    assert (reference["images"], reference["images_per_class"]) == (200, 4)
    assert reference["classifier"]["train_on"] == "real"
    check_call(*complete_run.make_command("test-classifier", complete_run.reference, identity=None, output=tmp_path))
    assert set(read_json(tmp_path / "metrics.json")["metrics"]) == {"real_acc", "validation_real_acc"}


def test_too_few_images_for_distances_are_a_warning(complete_run: SmallRun, tmp_path, caplog):
    pytest.importorskip("torch_fidelity")
    metrics = ["fid_resnet18", "gan_test"]
    check_call(*complete_run.make_command("measure-samples", metrics=metrics, output=tmp_path))
    assert "expected at least 1024 images, twice the 512 features, received 40" in caplog.text
    assert set(read_json(tmp_path / "metrics.json")["metrics"]) == {"gan_test", "saturated"}


def test_distances_are_measured_if_there_are_enough_images(complete_run: SmallRun, tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr("nfpi.classifiers.LoadedClassifier.num_features", 10)
    metrics, quality = ["fid_resnet18", "real_fid_resnet18"], {"images": 30, "split": "test"}
    command = complete_run.make_command("measure-samples", metrics=metrics, quality=quality, output=tmp_path)
    check_call(*command)
    found = read_json(tmp_path / "metrics.json")
    distances = ("fid", "kid", "precision", "recall")
    names = {f"{prefix}{name}_resnet18" for prefix in ("", "real_") for name in distances}
    assert set(found["metrics"]) == {"gan_test", "saturated", *names}
    assert found["settings"]["quality"]["images"] == 30
    check_call(*command)
    assert read_json(tmp_path / "metrics.json")["metrics"] == found["metrics"]


def test_inception_without_its_weights_is_an_error(complete_run: SmallRun, tmp_path, capsys):
    assert call(*complete_run.make_command("measure-samples", metrics=["fid_inception"], output=tmp_path)) != 0
    assert "expected the network resnet18 or inception" in read_error_line(capsys)
    assert not {"metrics.json", "predictions.npz"} & list_files(tmp_path)
