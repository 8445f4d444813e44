from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nfpi.data import DataError, read_image_set
from nfpi.results.records import write_metrics
from nfpi.runtime.divergence import divergence_record, mark_images, mark_tensors, raise_if_diverged, raise_if_marked
from nfpi.priors import ClassStatistics, FixedPointConfig, FixedPointDiverged, fit_fixed_point
from nfpi.runtime.tensors import load_flow, load_prior, load_statistics, load_tensors, save_tensors

CONTEXT = {"seed": 7, "prior": {"update": "exact", "alpha": 10.0}}


@pytest.fixture(scope="module")
def fault() -> FixedPointDiverged:
    """A fit that really ran away."""
    generator = torch.Generator().manual_seed(0)
    statistics = ClassStatistics.from_latents(torch.randn(60, 8, generator=generator), torch.arange(60) % 3)
    with pytest.raises(FixedPointDiverged) as error:
        fit_fixed_point(statistics, FixedPointConfig(weight=1e7, update="exact"))
    error.value.context = CONTEXT
    return error.value


def mark_metrics(path: Path, fault: FixedPointDiverged) -> None:
    record = divergence_record(fault)
    write_metrics(path, {}, n=0, seed=7, settings=CONTEXT, device="none", seconds=0, diverged=record)


@pytest.mark.parametrize(
    ("mark", "read"),
    [
        (mark_tensors, load_tensors),
        (mark_tensors, load_prior),
        (mark_tensors, load_flow),
        (mark_tensors, load_statistics),
        (mark_images, lambda folder: raise_if_marked(folder / "meta.json")),
        (mark_metrics, raise_if_marked),
    ],
)
def test_whoever_reads_a_mark_gets_the_divergence_again(fault, tmp_path, mark: Callable, read: Callable):
    place = tmp_path / "new folder" / "place"
    mark(place, fault)
    with pytest.raises(FixedPointDiverged) as error:
        read(place)
    again = error.value
    for name in ("iteration", "class_index", "quantity", "weight", "context"):
        assert getattr(again, name) == getattr(fault, name), name
    assert str(again) == str(fault)
    assert again.weight == 1e7
    # and once more, as the next stage does
    mark(tmp_path / "next", again)
    with pytest.raises(FixedPointDiverged) as error:
        read(tmp_path / "next")
    assert divergence_record(error.value) == divergence_record(fault)


def test_a_marked_image_set_has_its_files_but_is_none(fault, tmp_path):
    mark_images(tmp_path / "set", fault)
    assert sorted(file.name for file in (tmp_path / "set").iterdir()) == ["images.npy", "labels.npy", "meta.json"]
    with pytest.raises(DataError, match="expected the keys"):
        read_image_set(tmp_path / "set")


def test_a_mark_takes_the_place_of_an_older_result(fault, tmp_path):
    save_tensors(tmp_path / "flow.safetensors", {"x": torch.ones(2)}, {})
    mark_tensors(tmp_path / "flow.safetensors", fault)
    with pytest.raises(FixedPointDiverged):
        load_tensors(tmp_path / "flow.safetensors")


def test_a_damaged_file_is_named_in_one_line(tmp_path):
    (tmp_path / "file.json").write_text('{"diverged": {')
    with pytest.raises(ValueError, match=r"file\.json: expected JSON") as error:
        raise_if_marked(tmp_path / "file.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [{"metrics": {"nf_acc": 1.0}}, {"diverged": None}, {"diverged": False}, {"diverged": {"iteration": 1}}, [1], {}],
)
def test_what_is_no_mark_is_left_alone(tmp_path, content):
    (tmp_path / "file.json").write_text(json.dumps(content))
    raise_if_marked(tmp_path / "file.json")
    raise_if_marked(tmp_path / "not there.json")
    if isinstance(content, dict):
        raise_if_diverged(content)
