"""Checkpoints of the authors' release: the same numbers, and nothing executed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nfpi.flows import Coupling, LowRankMatrixExponentialCoupling, MatrixExponentialFlow
from nfpi.flows.dequantization import dequantize
from nfpi.priors import GaussianPrior
from nfpi.release import load_release_checkpoint
from nfpi.runtime.formats import FormatError

SHARED = Path(os.environ.get("NFPI_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "released_checkpoint"


def make_released_state(flow: MatrixExponentialFlow, prior: GaussianPrior, prefix: str) -> dict[str, torch.Tensor]:
    """The weights under the names, and in the shapes, of the released code."""
    state = {}
    for key, value in flow.state_dict().items():
        name = re.sub(r"^levels\.(\d+)\.(\d+)\.", r"blocks.\1.\2.", key)
        name = name.replace(".linear.", ".conv1x1.").replace(".coupling.", ".couplinglayer.")
        name = name.replace(".net.out.", ".net.out_layer.").replace(".net.head.", ".net.layers.0.")
        name = re.sub(r"\.net\.blocks\.(\d+)\.", lambda m: f".net.layers.{int(m[1]) + 1}.", name)
        if ".net.layers." in name:
            stem, last = name.rsplit(".", 1)
            name = f"{stem}.conv.weight" if last == "weight" else f"{stem}.norm.{last}"
            value = value if last == "weight" else value[:, None, None]
        state[prefix + name] = value
    for index in range(prior.num_classes):
        state[f"{prefix}mu_arr.{index}"] = prior.mean[index]
        state[f"{prefix}scale_tril_arr.{index}"] = prior.variance[index].sqrt()
    return state


@pytest.fixture
def models() -> tuple[MatrixExponentialFlow, MatrixExponentialFlow, GaussianPrior]:
    torch.manual_seed(0)
    # 13 channels are 52 after the squeeze: the coupling of the first level is of low rank
    online, averaged = (MatrixExponentialFlow((13, 8, 4), [2, 1], [1, 2], [5, 6]) for _ in range(2))
    for flow in (online, averaged):
        assert any(isinstance(module, LowRankMatrixExponentialCoupling) for module in flow.modules())
        flow.initialize(torch.rand(20, 13, 8, 4))
        for module in flow.modules():
            if isinstance(module, Coupling):
                torch.nn.init.normal_(module.net.out.weight, std=0.1)
    return online, averaged, GaussianPrior(torch.randn(3, 13 * 32), 0.5 + torch.rand(3, 13 * 32))


def _write(path: Path, models: Any, hyper_parameters: Any = None) -> Path:
    online, averaged, prior = models
    state = make_released_state(online, prior, "flow.") | make_released_state(averaged, prior, "ema.ema_model.")
    torch.save({"epoch": 1, "state_dict": state, "hyper_parameters": hyper_parameters}, path)
    return path


@pytest.mark.parametrize("averaged", [False, True])
def test_any_architecture_is_read_off_the_weights(models, tmp_path, averaged):
    flow, prior = load_release_checkpoint(_write(tmp_path / "a.ckpt", models), averaged)
    expected = models[averaged]
    assert flow.settings == expected.settings
    x = torch.rand(2, 13, 8, 4)
    torch.testing.assert_close(flow(x), expected(x))
    torch.testing.assert_close(prior.mean, models[2].mean)
    torch.testing.assert_close(prior.variance, models[2].variance)


class _Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_runs_nothing(models, tmp_path):
    victim = tmp_path / "executed"
    path = _write(tmp_path / "a.ckpt", models, _Malicious(victim))
    with pytest.raises(FormatError, match=r"a\.ckpt: .*mkdir"):
        load_release_checkpoint(path)
    assert not victim.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no checkpoint", "that cannot be read"),
        ({"weights": {}}, "with a state_dict, received none"),
        ({"state_dict": {"flow.other": torch.zeros(1)}}, "weights under 'ema.ema_model.blocks'"),
    ],
)
def test_other_files_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(FormatError, match=message) as caught:
        load_release_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_refused_or_gives_the_same_numbers(models, tmp_path):
    """torch takes changed weights in silence: it leaves the checksums of the archive unread."""
    content = _write(tmp_path / "a.ckpt", models).read_bytes()
    expected, prior = load_release_checkpoint(tmp_path / "a.ckpt")
    refused = named = 0
    for place in np.linspace(0, len(content) - 1, 150).astype(int):
        (tmp_path / "a.ckpt").write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            flow, found = load_release_checkpoint(tmp_path / "a.ckpt")
        except FormatError as error:
            named += str(error).startswith(f"{tmp_path / 'a.ckpt'}: ") and "\n" not in str(error)
            refused += 1
            continue
        weights = flow.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in expected.state_dict().items())
        assert torch.equal(found.mean, prior.mean)
        assert torch.equal(found.variance, prior.variance)
    assert named == refused > 100


def test_weights_that_do_not_fit_are_refused(models, tmp_path):
    online, averaged, prior = models
    state = make_released_state(averaged, prior, "ema.ema_model.") | make_released_state(online, prior, "flow.")
    del state["ema.ema_model.blocks.1.0.couplinglayer.rescale"]
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(FormatError, match="released layout"):
        load_release_checkpoint(tmp_path / "a.ckpt")


def test_a_number_of_the_gaussians_that_is_not_finite_is_named(models, tmp_path):
    online, averaged, prior = models
    state = make_released_state(averaged, prior, "ema.ema_model.") | make_released_state(online, prior, "flow.")
    state["flow.mu_arr.1"] = torch.full_like(state["flow.mu_arr.1"], torch.nan)
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    with pytest.raises(FormatError, match=r"a\.ckpt: .*prior: mean is not finite"):
        load_release_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the released checkpoint is not here")
@pytest.mark.parametrize(("averaged", "prefix"), [(False, "online_"), (True, "ema_")])
def test_the_released_checkpoint_gives_what_it_must(averaged, prefix):
    expected = np.load(SHARED / "expected.npz")
    flow, prior = load_release_checkpoint(SHARED / "checkpoint.ckpt", averaged)
    with torch.no_grad():
        z, log_abs_det = flow(dequantize(torch.from_numpy(expected["images_uint8"]), None))
        scores = prior.log_prob(z)
    reference = torch.from_numpy(expected[f"{prefix}class_log_prob"]).double()
    torch.testing.assert_close(z, torch.from_numpy(expected[f"{prefix}z"]), atol=1e-3, rtol=0)
    torch.testing.assert_close(log_abs_det, torch.from_numpy(expected[f"{prefix}log_abs_det"]), atol=2e-2, rtol=0)
    torch.testing.assert_close(scores, reference, atol=0, rtol=1e-4)
    assert torch.equal(scores.argmax(1), reference.argmax(1))
