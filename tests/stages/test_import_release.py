"""A checkpoint of the authors' release as a model that the later stages take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_release import make_released_state

from nfpi.data.writer import write_image_set
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.model import ClassConditionalFlow
from nfpi.priors.gaussian import GaussianPrior

from .conftest import call, check_call, format_options, read_error_line, read_json


@pytest.fixture
def checkpoint(trained_run, tmp_path: Path) -> Path:
    """With the trained flow as the averaged one, and another as the online one."""
    model = ClassConditionalFlow.from_pretrained(trained_run.model)
    assert isinstance(model.flow, MatrixExponentialFlow)
    torch.manual_seed(0)
    online = MatrixExponentialFlow((1, 8, 8), [1], [1], [8])
    online.initialize(torch.rand(20, 1, 8, 8))
    prior = GaussianPrior(model.prior.mean.float(), model.prior.variance.float())
    state = make_released_state(online, prior, "flow.") | make_released_state(model.flow, prior, "ema.ema_model.")
    torch.save({"state_dict": state, "hyper_parameters": None}, tmp_path / "released.ckpt")
    return tmp_path / "released.ckpt"


def test_a_released_flow_is_evaluated_as_the_one_it_was_made_of(trained_run, checkpoint, tmp_path):
    options = format_options(data=trained_run.splits, weight=trained_run.weight, output=tmp_path)
    check_call("import-model", checkpoint, *options)
    model = ClassConditionalFlow.from_pretrained(tmp_path / "model")
    assert model.classes == [str(digit) for digit in range(10)]
    assert (model.config["start"], model.config["averaged"]) == ("release", True)
    released = ClassConditionalFlow.from_release(checkpoint, model.classes)
    assert {**released.config, "data": model.config["data"]} == model.config
    assert (released.encode(images := np.zeros((2, 8, 8, 1), np.uint8)) == model.encode(images)).all()
    assert ClassConditionalFlow.from_release(checkpoint).classes == model.classes
    with pytest.raises(ValueError, match=r"3 classes .* 10 "):
        ClassConditionalFlow.from_release(checkpoint, ["ant", "bee", "cat"])
    run = {**trained_run.identity.to_json(), "seed": 0}
    check_call(
        *trained_run.make_command(
            "evaluate", model=tmp_path / "model", history=None, initial=None, identity=run, output=tmp_path / "run"
        )
    )
    received, expected = (
        read_json(path / "metrics.json")["metrics"] for path in (tmp_path / "run", trained_run.folder)
    )
    assert received["bits_per_dim"] == pytest.approx(expected["bits_per_dim"], rel=0.01)  # other noise, of seed 0
    assert received["nf_acc"] == pytest.approx(expected["nf_acc"], abs=10)
    check_call(*trained_run.make_command("generate", model=tmp_path / "model", output=tmp_path / "images"))


def test_the_online_weights_are_taken_where_they_are_asked_for(trained_run, checkpoint, tmp_path):
    options = format_options(data=trained_run.splits, no_averaged=True, output=tmp_path / "online")
    check_call("import-model", checkpoint, *options)
    check_call("import-model", checkpoint, *format_options(data=trained_run.splits, output=tmp_path / "averaged"))
    online, averaged = (
        ClassConditionalFlow.from_pretrained(tmp_path / name / "model") for name in ("online", "averaged")
    )
    assert online.config["averaged"] is False
    weights = [model.flow.state_dict().values() for model in (online, averaged)]
    assert not all(one.equal(other) for one, other in zip(*weights, strict=True))


def test_images_of_another_form_are_refused(checkpoint, make_images, tmp_path, capsys):
    images = make_images((1, 8, 8))
    for split in ("train", "test"):
        folder = tmp_path / "splits" / split
        write_image_set(folder, images.images, images.labels, images.classes, name="toy", flip=False)
    assert call("import-model", checkpoint, "--data", tmp_path / "splits", "--output", tmp_path / "new") == 1
    assert "(3, 64)" in read_error_line(capsys)
    assert not (tmp_path / "new").exists()
