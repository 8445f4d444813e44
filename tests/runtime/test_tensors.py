from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nfpi.runtime.formats import FormatError
from nfpi.runtime.tensors import load_tensors, save_tensors

HEADER = {"seed": 3, "λ": 0.1, "settings": {"update": "exact", "list": [1, 2.5, None]}}


def assert_refused(file: Path) -> None:
    """In one line that names the file."""
    with pytest.raises(FormatError) as error:
        load_tensors(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_views_and_dtypes_are_kept(tmp_path):
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "channels_last": torch.randn(1, 2, 3, 3).contiguous(memory_format=torch.channels_last),
        "count": torch.tensor([1, 2], dtype=torch.int64),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "half": torch.tensor([0.5], dtype=torch.bfloat16),
    }
    save_tensors(tmp_path / "t.safetensors", tensors, {})
    found, header = load_tensors(tmp_path / "t.safetensors")
    assert header == {}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_no_code_runs_when_a_file_is_read(tmp_path):
    """It is safetensors, not pickle."""
    save_tensors(tmp_path / "t.safetensors", {"x": torch.ones(2)}, HEADER)
    content = (tmp_path / "t.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    declared = json.loads(content[8 : 8 + length])
    assert set(declared) == {"__metadata__", "x"}
    assert json.loads(declared["__metadata__"]["nfpi"]) == HEADER


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_and_nothing_written(tmp_path, value):
    file = tmp_path / "flow.safetensors"
    tensors = {"weight": torch.ones(2), "shift": torch.tensor([0.0, value])}
    with pytest.raises(FormatError, match=r"flow\.safetensors: shift"):
        save_tensors(file, tensors, {})
    with pytest.raises(ValueError, match="JSON"):
        save_tensors(file, {}, {"λ": value})
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failed_write(tmp_path):
    file = tmp_path / "prior.safetensors"
    save_tensors(file, {"mean": torch.ones(2)}, HEADER)
    with pytest.raises(FormatError):
        save_tensors(file, {"mean": torch.tensor([torch.nan])}, {})
    assert torch.equal(load_tensors(file)[0]["mean"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_file(tmp_path):
    assert_refused(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("kept", [0, 4, 60, 500, -1])
def test_a_truncated_file(tmp_path, kept):
    file = tmp_path / "flow.safetensors"
    save_tensors(file, {"weight": torch.ones(200)}, HEADER)
    file.write_bytes(file.read_bytes()[:kept])
    assert_refused(file)


def test_a_file_of_another_kind(tmp_path):
    file, folder = tmp_path / "text.safetensors", tmp_path / "folder.safetensors"
    file.write_text("not tensors at all, but long enough for a header of its own")
    folder.mkdir()
    assert_refused(file)
    assert_refused(folder)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"nfpi": "[1, 2]"}, {"nfpi": "{"}])
def test_a_safetensors_file_of_somebody_else(tmp_path, metadata):
    file = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"mean": torch.zeros(2, 2), "variance": torch.ones(2, 2)}, file, metadata)
    assert_refused(file)
