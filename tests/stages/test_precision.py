"""The precision of trainings by hand: what `auto` was is noted, and what a device does not have is refused."""

from __future__ import annotations

import pytest
import torch

from nfpi.runtime.tensors import load_tensors

from .conftest import call, check_call, list_files, read_error_line, read_json


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NFPI_DEVICE", "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)  # without bfloat16


@pytest.mark.parametrize(("wanted", "found"), [("auto", "32-true"), ("bf16-mixed", "bf16-mixed")])
def test_results_say_in_what_their_flow_was_trained(trained_run, tmp_path, wanted, found):
    check_call(*trained_run.make_command("train-flow", training={"precision": wanted}, output=tmp_path))
    assert read_json(tmp_path / "model/config.json")["training"]["precision"] == found
    left, right = (load_tensors(folder / "model/model.safetensors")[0] for folder in (tmp_path, trained_run.folder))
    assert all(tensor.equal(right[name]) for name, tensor in left.items()) == (found == "32-true")
    check_call(
        *trained_run.make_command("evaluate", model=tmp_path / "model", history=tmp_path / "log.csv", output=tmp_path)
    )
    settings = read_json(tmp_path / "metrics.json")["settings"]
    assert settings["training"]["precision"] == found


def test_results_say_in_what_their_classifier_was_trained(complete_run, tmp_path):
    check_call(*complete_run.make_command("train-classifier", classifier={"precision": "auto"}, output=tmp_path))
    assert read_json(tmp_path / "metrics.json")["settings"]["classifier"]["precision"] == "32-true"
    _, header = load_tensors(tmp_path / "model.safetensors")
    assert header["classifier"]["precision"] == "32-true"


def test_a_precision_that_a_cpu_does_not_have_is_refused_in_one_line(complete_run, tmp_path, capsys):
    assert call(*complete_run.make_command("train-flow", training={"precision": "tf32"}, output=tmp_path)) == 1
    assert "precision: " in read_error_line(capsys)
    assert list_files(tmp_path) == set()
