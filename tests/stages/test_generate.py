"""Images drawn from a flow whose inverse overflows for some latents."""

from __future__ import annotations

import pytest
import torch

from nfpi.data.writer import ImageSetWriter
from nfpi.flows import MatrixExponentialFlow
from nfpi.runtime.signals import Interrupted

from .conftest import SmallRun, call, check_call, list_files


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the inverse overflow for about every second latent."""
    inverse = MatrixExponentialFlow.inverse

    def overflow(flow: MatrixExponentialFlow, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, log_abs_det = inverse(flow, z)
        x[(1000 * z.flatten(1)[:, 0]).floor() % 2 == 0] = torch.inf
        return x, log_abs_det

    monkeypatch.setattr(MatrixExponentialFlow, "inverse", overflow)


def test_images_that_are_drawn_again_are_the_same_after_a_stop(
    trained_run: SmallRun, faulty, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    check_call(*trained_run.make_command("generate", output=tmp_path / "once"))
    assert "their latents are drawn again" in caplog.text

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
