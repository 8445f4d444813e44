"""Files that are damaged, or do not belong together, are refused in one line, and nothing is written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from nfpi.data.writer import write_image_set
from nfpi.priors.files import save_prior
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.tensors import load_tensors, save_tensors

from .conftest import call, list_files, read_error_line

OTHER_WEIGHT = {"dataset": "digits", "seed": 3, "flow": "mef", "prior": "fpi", "lambda": 7}


@pytest.fixture
def model(trained_run, tmp_path) -> Path:
    """A copy of the model, to be damaged."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in trained_run.model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", lambda content: content[:-100]),
        ("model.safetensors", lambda _: None),
        ("config.json", lambda content: content[:-100]),
        ("config.json", lambda _: None),
        ("config.json", lambda _: b"[]"),
        ("config.json", lambda content: content.replace(b'"format": 1', b'"format": 2')),
        ("config.json", lambda content: re.sub(rb'("hidden_channels": \[\s+)8', rb"\g<1>9", content)),
        ("config.json", lambda content: content.replace(b'"9"', b'"9", "10"')),
    ],
)
def test_a_damaged_model_is_named(trained_run, model, file, damage, tmp_path, capsys):
    before = (model / file).read_bytes()
    damaged = damage(before)
    assert damaged != before
    (model / file).unlink()
    if damaged is not None:
        (model / file).write_bytes(damaged)
    assert call(*trained_run.make_command("evaluate", model=model, output=tmp_path / "new/folder")) == 1
    assert str(model) in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gaussians and images of another shape and number of classes."""
    folder = tmp_path_factory.mktemp("other")
    header = {"start": "data", "seed": 0, "lambda": 0.0}
    for name, size in (("fewer_classes", (3, 64)), ("other_dimensions", (10, 48))):
        prior = GaussianPrior(torch.randn(size, dtype=torch.float64), torch.ones(size, dtype=torch.float64))
        save_prior(folder / f"{name}.safetensors", prior, header)
    for split in ("train", "validation", "test"):
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (20, 6, 6, 3), np.uint8)
        labels = np.repeat(np.arange(2), 10)
        write_image_set(folder / "splits" / split, images, labels, ["a", "b"], name="ab", split=split, flip=True)
    return folder


@pytest.mark.parametrize("prior", ["fewer_classes", "other_dimensions"])
def test_a_prior_of_other_data_is_refused(trained_run, other, prior, tmp_path, capsys):
    command = trained_run.make_command("train-flow", prior=other / f"{prior}.safetensors", output=tmp_path / "new")
    assert call(*command) == 1
    assert "(10, 64)" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("size", [(3, 64), (10, 48)], ids=["fewer classes", "other dimensions"])
def test_a_model_whose_gaussians_are_of_other_data_is_refused(trained_run, model, size, tmp_path, capsys):
    weights, header = load_tensors(model / "model.safetensors")
    gaussians = {"prior.mean": torch.zeros(size), "prior.variance": torch.ones(size)}
    save_tensors(model / "model.safetensors", weights | gaussians, header)
    assert call(*trained_run.make_command("evaluate", model=model, output=tmp_path / "new")) == 1
    assert f"received {size[0]} in {size[1]}" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "stage", ["train-flow", "evaluate", "augment", "start-flow", "train-classifier", "test-classifier"]
)
def test_images_of_other_data_are_refused(complete_run, other, stage, tmp_path, capsys):
    changes = {
        "start-flow": {"flow": {"num_flows": [8, 8, 8], "num_blocks": [8, 4, 2], "hidden_channels": [128] * 3}},
        "train-classifier": {"classifier": {"train_on": "both"}},
    }.get(stage, {})
    assert call(*complete_run.make_command(stage, data=other / "splits", output=tmp_path / "new", **changes)) == 1
    read_error_line(capsys)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("stage", "change", "message"),
    [
        ("evaluate", {"identity": {"seed": 4}}, "seed = 4 like the run, received 3"),
        ("evaluate", {"identity": {"lambda": 7}}, "lambda = 7 like the run, received 100"),
        ("train-flow", {"identity": OTHER_WEIGHT}, "lambda = 7 like the run, received 100"),
        ("evaluate", {"identity": {"lamda": 1}}, "lamda"),
        ("test-classifier", {"identity": {"seed": 4}}, "seed = 4 like the run, received 3"),
    ],
)
def test_an_identity_of_another_run_is_refused(complete_run, stage, change, message, tmp_path, capsys):
    assert call(*complete_run.make_command(stage, output=tmp_path / "new", **change)) == 1
    assert message in read_error_line(capsys)
    assert list_files(tmp_path) == set()
