"""Published weights: fetched once, read from a file ever after."""

import pytest
import torch
from torch import nn

from nfpi.classifiers import models, published_weights
from nfpi.cli import main


def test_weights_come_back_from_their_file(tmp_path, monkeypatch):
    network = nn.Linear(3, 2)
    made = models.ClassifierModel(nn.Linear, lambda **_: network)
    monkeypatch.setitem(models.CLASSIFIERS, "eva02", made)
    assert main(["download-weights", "--model", "eva02", "--output", str(tmp_path / "a/eva02.safetensors")]) == 0
    read = models.read_weights(tmp_path / "a/eva02.safetensors")
    assert read.keys() == network.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in network.state_dict().items())


def test_what_cannot_be_had_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    def unreachable(**_):
        raise OSError("no route\nto the hub")

    monkeypatch.setitem(models.CLASSIFIERS, "eva02", models.ClassifierModel(nn.Linear, unreachable))
    assert main(["download-weights", "--output", str(tmp_path / "eva02.safetensors")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith(
        "nfpi: error: classifier: the published weights of eva02 cannot be had (no route to the hub"
    )
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_published_can_be_fetched():
    with pytest.raises(ValueError, match="resnet18 has no published weights"):
        published_weights("resnet18")
