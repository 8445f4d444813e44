"""What is seen of a training while it runs; the training itself is as it would be unseen."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nfpi.config.base import ConfigError
from nfpi.data.domain import LatentDomain
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.sampling import balanced_labels, sample_images
from nfpi.training import tracking
from nfpi.training.flow import continue_training, start_training

from .conftest import (
    SEED,
    Cut,
    assert_equal_states,
    describe_flow,
    drop_seconds,
    make_checkpoints,
    start,
    train_in_one_go,
)

needs_tensorboard = pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed")
TRACKED = {"tracking": "tensorboard", "sample_every_epochs": 1}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Step and value of every point that TensorBoard shows, by the name of its curve."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tracking"))
    events.Reload()
    return {name: [(point.step, point.value) for point in events.Scalars(name)] for name in events.Tags()["scalars"]}


def curves(log: list) -> dict[str, list[tuple[int, float]]]:
    """The same of a log."""
    names = [name for name in log[0] if name != "epoch"]
    return {
        name: [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in log if row[name] is not None]
        for name in names
        if any(row[name] is not None for row in log)
    }


@needs_tensorboard
def test_a_training_that_is_tracked_is_the_same_bit_for_bit(make_data, device, tmp_path):
    data = make_data(**TRACKED)
    begun = start_training(data, describe_flow(data), "data", SEED, device, tracked=tmp_path / "initial")
    torch.manual_seed(8)
    before = torch.get_rng_state()
    state = continue_training(begun.state, begun.prior, data, device, tracked=tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal_states(state, train_in_one_go(make_data(), device))
    for folder, epochs in (("initial", [1]), ("run", [2, 3])):
        grids = sorted((tmp_path / folder / "samples").iterdir())
        assert [grid.name for grid in grids] == [f"epoch={epoch:04d}.png" for epoch in epochs]


@needs_tensorboard
@pytest.mark.parametrize("saved", [True, False], ids=["in a checkpoint", "before its checkpoint"])
def test_a_resumed_training_goes_on_with_its_curves(make_data, device, tmp_path, monkeypatch, saved):
    """Cut at the end of epoch 2, which is tracked by then: it is in the checkpoint, or trained again."""
    data = make_data(**TRACKED)
    begun, again, save = start(data, device), start(data, device), Checkpoints.save

    def save_and_cut(checkpoints: Checkpoints, step: int, tensors: dict, header: dict) -> None:
        ends = len(header["log"]) == 2
        if saved or not ends:
            save(checkpoints, step, tensors, header)
        if ends:
            raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_cut)
        with pytest.raises(Cut):
            continue_training(
                begun.state, begun.prior, data, device, make_checkpoints(tmp_path, data), tracked=tmp_path
            )
    assert scalars(tmp_path)["train_bits_per_dim"][-1][0] == 2
    state = continue_training(
        again.state, again.prior, data, device, make_checkpoints(tmp_path, data), tracked=tmp_path
    )
    assert len(list((tmp_path / "tracking").iterdir())) == 1
    assert scalars(tmp_path) == curves(state.log)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {"epoch=0002.png", "epoch=0003.png"}


@needs_tensorboard
def test_a_training_that_begins_anew_shows_nothing_of_the_one_before(make_data, device, tmp_path):
    longer, data = make_data(epochs=4, **TRACKED), make_data(**TRACKED)
    for now in (longer, data):
        begun = start(now, device)
        (tmp_path / "samples").mkdir(exist_ok=True)
        (tmp_path / "samples/mine.txt").touch()
        state = continue_training(begun.state, begun.prior, now, device, tracked=tmp_path)
    assert scalars(tmp_path) == curves(state.log)
    assert {path.name for path in (tmp_path / "samples").iterdir()} == {
        "epoch=0002.png",
        "epoch=0003.png",
        "mine.txt",
    }


def test_a_grid_has_a_class_a_row_of_what_the_averaged_flow_draws(make_data, device, tmp_path):
    data = make_data(shape=(3, 8, 8), sample_every_epochs=3)
    begun = start(data, device)
    state = continue_training(begun.state, begun.prior, data, device, tracked=tmp_path)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["epoch=0003.png"]
    labels = balanced_labels(3, 10)
    settings = {"temperature": 1.0, "seed": SEED, "batch_size": 30, "domain": data.domain}
    ((images, _),) = sample_images(state.averaged_flow, begun.prior, labels, **settings)
    grid = np.asarray(Image.open(tmp_path / "samples/epoch=0003.png"))
    assert grid.shape == (3 * 10 + 2, 10 * 10 + 2, 3)
    for place, image in enumerate(images):
        top, left = (2 + 10 * at for at in divmod(place, 10))
        assert (grid[top : top + 8, left : left + 8] == image.permute(1, 2, 0).numpy()).all()


def test_a_flow_that_cannot_be_sampled_yet_trains_on(make_data, device, tmp_path, monkeypatch, caplog):
    def overflow(*_: object, **__: object) -> None:
        raise FloatingPointError("images are still not finite")

    monkeypatch.setattr(tracking, "sample_images", overflow)
    data = make_data(sample_every_epochs=2)
    begun = start(data, device)
    with caplog.at_level(logging.WARNING):
        state = continue_training(begun.state, begun.prior, data, device, tracked=tmp_path)
    assert "images are still not finite" in caplog.text
    assert drop_seconds(state.log) == drop_seconds(train_in_one_go(make_data(), device).log)
    assert not (tmp_path / "samples").exists()


def test_latents_of_an_autoencoder_are_not_drawn(make_data, device, tmp_path):
    data = make_data(sample_every_epochs=1)
    begun = start(data, device)
    of_latents = replace(data)
    of_latents.__dict__["domain"] = LatentDomain(0.05, torch.ones(1, 8, 8))
    with tracking.tracking(tmp_path, of_latents, begun.state.log) as track:
        track(begun.state, begun.prior)
    assert not list(tmp_path.iterdir())
    with tracking.tracking(tmp_path, data, begun.state.log) as track:
        track(begun.state, begun.prior)
    assert (tmp_path / "samples/epoch=0001.png").is_file()


def test_what_is_needed_and_not_installed_is_named(make_data, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    data = make_data(tracking="tensorboard")
    with pytest.raises(ConfigError, match=r"pip install"), tracking.tracking(tmp_path, data, []):
        pass
