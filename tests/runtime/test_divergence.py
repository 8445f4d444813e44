"""Files that stand for a fit that diverged."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nfpi.data.store import read_image_set
from nfpi.priors import ClassStatistics, FixedPointConfig, FixedPointDiverged, fit_fixed_point
from nfpi.priors.files import load_prior, load_statistics
from nfpi.runtime.divergence import Diverged, mark_diverged, raise_if_marked
from nfpi.runtime.formats import FormatError
from nfpi.runtime.tensors import load_tensors, save_tensors

CONTEXT = {"seed": 7, "prior": {"update": "exact", "alpha": 10.0}}


@pytest.fixture(scope="module")
def fault() -> FixedPointDiverged:
    """A fit that really diverged."""
    generator = torch.Generator().manual_seed(0)
    statistics = ClassStatistics.from_latents(torch.randn(60, 8, generator=generator), torch.arange(60) % 3)
    with pytest.raises(FixedPointDiverged) as error:
        fit_fixed_point(statistics, FixedPointConfig(weight=1e7, update="exact"))
    error.value.context = CONTEXT
    return error.value


@pytest.mark.parametrize(
    ("file", "read"),
    [
        ("x.safetensors", load_tensors),
        ("x.safetensors", load_prior),
        ("x.safetensors", load_statistics),
        ("meta.json", raise_if_marked),
    ],
)
def test_reading_a_marked_file_raises_the_divergence_again(fault, tmp_path, file, read: Callable):
    place = tmp_path / "new folder" / file
    mark_diverged([place], fault)
    with pytest.raises(Diverged) as error:
        read(place)
    again = error.value
    for name in ("iteration", "class_index", "quantity", "weight", "relative_weight", "context"):
        assert getattr(again, name) == getattr(fault, name), name
    assert again.weight == 1e7
    assert "s₀ = 7.54e+04" in str(again)
    # and once more, as the next stage does
    mark_diverged([tmp_path / "next" / file], again)
    with pytest.raises(Diverged) as error:
        read(tmp_path / "next" / file)
    assert error.value.record == again.record


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"diverged": {',
        '{"diverged": {"iteration": 1}}',
    ],
)
def test_a_damaged_mark_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(FormatError) as error:
        raise_if_marked(path)
    assert str(error.value).startswith(f"{path}: expected ")
    assert "\n" not in str(error.value)


def test_outputs_of_a_stage_are_marked_in_their_own_forms(fault, tmp_path):
    names = ("images.npy", "labels.npy", "meta.json", "log.csv", "predictions.npz", "model.safetensors")
    mark_diverged([tmp_path / "set" / name for name in names], fault)
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == sorted(names)
    assert len(np.load(tmp_path / "set/images.npy")) == 0
    assert np.load(tmp_path / "set/predictions.npz").files == []
    with pytest.raises(Diverged):
        read_image_set(tmp_path / "set")


def test_an_output_without_such_a_form_is_refused_before_any_is_written(fault, tmp_path):
    with pytest.raises(ValueError, match=r"\.png"):
        mark_diverged([tmp_path / "metrics.json", tmp_path / "figure.png"], fault)
    assert list(tmp_path.iterdir()) == []


def test_a_mark_replaces_an_older_result(fault, tmp_path):
    save_tensors(tmp_path / "flow.safetensors", {"x": torch.ones(2)}, {})
    mark_diverged([tmp_path / "flow.safetensors"], fault)
    with pytest.raises(Diverged):
        load_tensors(tmp_path / "flow.safetensors")


@pytest.mark.parametrize("content", [{"metrics": {"nf_acc": 1.0}}, {}])
def test_other_files_raise_nothing(tmp_path, content):
    (tmp_path / "file.json").write_text(json.dumps(content))
    raise_if_marked(tmp_path / "file.json")
    raise_if_marked(tmp_path / "not there.json")
