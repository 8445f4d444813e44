"""Images drawn from a flow whose inverse overflows for some latents."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from nfpi.data.writer import ImageSetWriter
from nfpi.flows import MatrixExponentialFlow
from nfpi.runtime.signals import Interrupted

from .conftest import SmallRun, call, check_call, list_files, read_json


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the inverse overflow for about every second latent."""
    inverse = MatrixExponentialFlow.inverse

    def overflow(flow: MatrixExponentialFlow, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, log_abs_det = inverse(flow, z)
        x[(1000 * z.flatten(1)[:, 0]).floor() % 2 == 0] = torch.inf
        return x, log_abs_det

    monkeypatch.setattr(MatrixExponentialFlow, "inverse", overflow)


def test_images_drawn_again_are_counted_also_those_of_a_stopped_process(
    trained_run: SmallRun, faulty, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    check_call(*trained_run.make_command("generate", output=tmp_path / "once"))
    redrawn = read_json(tmp_path / "once/meta.json")["extra"]["redrawn"]
    assert 0 < redrawn < 40
    assert re.search(rf"drew {redrawn} of 40 images again", caplog.text)

    put, puts = ImageSetWriter.put, iter(range(3))

    def stop_at_the_last(*arguments) -> None:
        if next(puts) == 2:
            raise Interrupted("SIGTERM")
        put(*arguments)

    stopped = trained_run.make_command("generate", output=tmp_path / "stopped")
    monkeypatch.setattr(ImageSetWriter, "put", stop_at_the_last)
    assert call(*stopped) != 0
    assert list_files(tmp_path / "stopped") == set()
    monkeypatch.setattr(ImageSetWriter, "put", put)
    check_call(*stopped)
    for name in ("meta.json", "images.npy"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_images_drawn_again_and_saturated_values_are_recorded_also_if_there_are_none(trained_run: SmallRun, tmp_path):
    check_call(*trained_run.make_command("generate", output=tmp_path / "images"))
    extra, images = read_json(tmp_path / "images/meta.json")["extra"], np.load(tmp_path / "images/images.npy")
    assert extra["redrawn"] == 0
    assert extra["saturated"] == pytest.approx(100 * np.isin(images, (0, 255)).mean())
