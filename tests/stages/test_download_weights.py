"""Published weights: fetched once, read from a file ever after."""

import pytest
import torch
from torch import nn

import nfpi.classifiers.models as eva02
from nfpi.classifiers import published_weights, read_weights
from nfpi.cli import main


def test_weights_come_back_from_their_file(tmp_path, monkeypatch):
    network = nn.Linear(3, 2)
    monkeypatch.setattr(eva02, "pretrained_eva02", lambda *_: network)
    assert main(["download-weights", "--model", "eva02", "--output", str(tmp_path / "a")]) == 0
    read = read_weights(tmp_path / "a/eva02.safetensors")
    assert read.keys() == network.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in network.state_dict().items())


def test_weights_that_cannot_be_had_are_one_line_and_leave_nothing(tmp_path, monkeypatch, capsys):
    def unreachable(*_):
        raise OSError("no route\nto the hub")

    monkeypatch.setattr(eva02, "pretrained_eva02", unreachable)
    assert main(["download-weights", "--output", str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("nfpi: error: ")
    assert "eva02" in error
    assert "no route to the hub" in error
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_published_can_be_fetched():
    with pytest.raises(ValueError, match="resnet18"):
        published_weights("resnet18")
