"""The models that the package brings along."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from nfpi import ClassConditionalFlow
from nfpi.model.files import PRETRAINED


@pytest.mark.parametrize("name", sorted(PRETRAINED))
def test_a_model_of_the_package_is_found_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no folder of this name
    model = ClassConditionalFlow.from_pretrained(name)
    assert model.data["name"] == name
    assert model.calibration.temperature > 1
    assert "Licence" in (PRETRAINED[name] / "README.md").read_text(encoding="utf-8")
    labels = np.arange(10).repeat(10)
    samples = model.sample(labels, temperature=0.8, generator=torch.Generator().manual_seed(0))
    assert (model.predict(samples) == labels).mean() >= 0.97


def test_a_folder_precedes_the_model_of_that_name(tmp_path, monkeypatch, fitted):
    monkeypatch.chdir(tmp_path)
    fitted.save_pretrained("digits")
    assert ClassConditionalFlow.from_pretrained("digits").classes == fitted.classes


def test_digits_that_the_model_has_not_seen_are_recognised():
    model = ClassConditionalFlow.from_pretrained("digits")
    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
    metrics = model.evaluate(pixels, labels)
    assert (metrics["n"], metrics["left_out"]) == (648, 1149)
    assert metrics["nf_acc"] >= 97


def test_the_models_are_small():
    files = [file for folder in PRETRAINED.values() for file in folder.iterdir()]
    assert sum(file.stat().st_size for file in files) <= 8e6
