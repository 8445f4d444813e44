"""A trained model as the model of a run: the same numbers, no test image that it was trained on, one line otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_release import make_released_state

from nfpi.data.writer import write_image_set
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.model import ClassConditionalFlow
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runs import CANDIDATE, GENERATED, OWN, Run
from nfpi.runtime.divergence import mark_diverged

from .conftest import SmallRun, call, check_call, format_options, list_files, read_error_line, read_json

TIMES = ("hours", "seconds_per_epoch", "seconds_per_1000_samples")


def import_model(run: SmallRun, model: object, output: Path, **changes: Any) -> tuple[object, ...]:
    """Return the command of a run's import."""
    options = {"data": run.splits, "weight": run.weight, "seed": run.seed, **changes}
    return ("import-model", model, *format_options(**options, output=output))


def own(identity: Run) -> Run:
    return replace(identity, flow="theirs", prior=OWN)


@pytest.fixture
def saved(complete_run: SmallRun, tmp_path: Path) -> Path:
    """The model of a run, saved elsewhere."""
    ClassConditionalFlow.from_pretrained(complete_run.model).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_an_imported_model_has_the_metrics_of_its_training(complete_run, saved, tmp_path):
    """NF-Acc, bits/dim and CNN-Acc to the last digit, at the seed that it was trained with."""
    folder = tmp_path / "run"
    check_call(*import_model(complete_run, saved, folder))
    assert list_files(folder) == {"model/config.json", "model/model.safetensors", "model.manifest.json"}
    options = {"model": folder / "model", "history": None, "initial": None}
    identity = own(complete_run.identity).to_json()
    check_call(*complete_run.make_command("evaluate", **options, identity=identity, output=folder))
    found, expected = (read_json(path / "metrics.json")["metrics"] for path in (folder, complete_run.folder))
    assert found.pop("unseen") == 80
    compared = found.keys() - TIMES
    assert "bits_per_dim" in compared
    assert {name: found[name] for name in compared} == {name: expected[name] for name in compared}
    candidates = []
    for temperature in complete_run.temperatures:
        wildcards = own(complete_run.tested).wildcards | {"temperature": f"{temperature:g}"}
        generated, candidate = (tmp_path / template.format(**wildcards) for template in (GENERATED, CANDIDATE))
        at = {"temperature": temperature}
        check_call(*complete_run.make_command("generate", **at, model=folder / "model", output=generated))
        check_call(*complete_run.make_command("train-classifier", **at, generated=generated, output=candidate))
        candidates.append(candidate)
    identity = own(complete_run.tested).to_json()
    command = complete_run.make_command("test-classifier", *candidates, identity=identity, output=tmp_path / "tested")
    check_call(*command)
    tested = complete_run.root / complete_run.tested.folder
    found, expected = (read_json(path / "metrics.json")["metrics"] for path in (tmp_path / "tested", tested))
    assert "cnn_acc" in found
    assert found == expected


def test_the_seed_is_that_of_noise_and_samples(complete_run, saved, tmp_path):
    check_call(*import_model(complete_run, saved, tmp_path / "run", seed=7))
    assert ClassConditionalFlow.read(tmp_path / "run/model").seed == 7
    check_call(*complete_run.make_command("refit-prior", model=tmp_path / "run/model", output=tmp_path / "refitted"))
    assert ClassConditionalFlow.read(tmp_path / "refitted/model").config["prior"]["refit"] == "moments"


def test_a_model_of_other_splits_is_imported_from_its_run(complete_run, tmp_path):
    """Its manifest names other splits than those of the run that it is imported for."""
    other = replace(complete_run, root=tmp_path, images={**complete_run.images, "test_per_class": 5})
    check_call(*other.make_command("prepare-data"))
    check_call(*import_model(other, complete_run.model, tmp_path / "run"))
    identity = own(complete_run.identity).to_json()
    options = {"model": tmp_path / "run/model", "history": None, "initial": None, "identity": identity}
    check_call(*other.make_command("evaluate", **options, output=tmp_path / "run"))
    assert read_json(tmp_path / "run/metrics.json")["n"] == 50


def test_a_model_that_was_trained_on_test_images_is_refused(complete_run, saved, tmp_path, capsys):
    """As are those of other splits: images that the data set has in its own training and test split do not count."""
    other = replace(complete_run, root=tmp_path, images={**complete_run.images, "split_seed": 1})
    check_call(*other.make_command("prepare-data"))
    capsys.readouterr()
    assert call(*import_model(other, saved, tmp_path / "run")) == 1
    assert "expected images that the model was not trained on, received" in read_error_line(capsys)
    assert not (tmp_path / "run/model").exists()


def test_an_earlier_model_says_nothing_of_its_training_images(complete_run, saved, tmp_path):
    replace(ClassConditionalFlow.read(saved), digests=None).write(saved)
    check_call(*import_model(complete_run, saved, tmp_path / "run"))
    assert "unseen" not in ClassConditionalFlow.read(tmp_path / "run/model").config


def test_a_model_whose_fit_diverged_is_a_result_too(trained_run, fault, tmp_path):
    mark_diverged([tmp_path / "saved" / name for name in ("config.json", "model.safetensors")], fault)
    check_call(*import_model(trained_run, tmp_path / "saved", tmp_path / "run"))
    assert read_json(tmp_path / "run/model/config.json") == {"diverged": fault.record}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 5}, "received one with λ = 100"),
        ({"model": "missing"}, "missing: "),
        ({"model": "README.md"}, "README.md: "),
    ],
)
def test_another_model_is_refused_in_one_line(complete_run, saved, tmp_path, capsys, change, message):
    (tmp_path / "README.md").write_text("no checkpoint")
    model = tmp_path / change.pop("model") if "model" in change else saved
    capsys.readouterr()
    assert call(*import_model(complete_run, model, tmp_path / "run", **change)) == 1
    assert message in read_error_line(capsys)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [((3, 8, 8), 10, "(C, H, W) = (1, 8, 8)"), ((1, 8, 8), 3, "(K, D) = (3, 64)"), ((1, 8, 8), 10, "the classes of")],
)
def test_a_model_of_other_images_is_refused_in_one_line(
    complete_run, saved, make_images, tmp_path, capsys, shape, classes, message
):
    images = make_images(shape, classes)
    for split in ("train", "test"):
        write_image_set(
            tmp_path / "splits" / split, images.images, images.labels, images.classes, name="toy", flip=False
        )
    assert call(*import_model(complete_run, saved, tmp_path / "run", data=tmp_path / "splits")) == 1
    assert message in read_error_line(capsys)


def test_a_model_of_the_hub_is_downloaded_at_its_commit(complete_run, saved, tmp_path, monkeypatch):
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("nfpi.model.hub.download_model", lambda name, **options: asked.append((name, options)) or saved)
    check_call(*import_model(complete_run, "owner/name", tmp_path / "run", revision="1" * 40))
    assert asked == [("owner/name", {"revision": "1" * 40})]
    assert ClassConditionalFlow.read(tmp_path / "run/model").classes == ClassConditionalFlow.read(saved).classes


# ---- released checkpoints -----------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(trained_run, tmp_path: Path) -> Path:
    """With the trained flow as the averaged one, and another as the online one."""
    model = ClassConditionalFlow.from_pretrained(trained_run.model)
    assert isinstance(model.flow, MatrixExponentialFlow)
    torch.manual_seed(0)
    online = MatrixExponentialFlow((1, 8, 8), [3, 1], [1, 2], [4, 6])
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
    options = {"model": tmp_path / "model", "history": None, "initial": None, "identity": run}
    check_call(*trained_run.make_command("evaluate", **options, output=tmp_path / "run"))
    received, expected = (
        read_json(path / "metrics.json")["metrics"] for path in (tmp_path / "run", trained_run.folder)
    )
    assert received["bits_per_dim"] == pytest.approx(expected["bits_per_dim"], rel=0.01)  # other noise, of seed 0
    assert received["nf_acc"] == pytest.approx(expected["nf_acc"], abs=10)
    check_call(*trained_run.make_command("generate", model=tmp_path / "model", output=tmp_path / "images"))


def test_the_online_weights_are_taken_where_they_are_asked_for(trained_run, checkpoint, tmp_path):
    options = format_options(data=trained_run.splits, no_averaged=True, output=tmp_path / "online")
    check_call("import-model", checkpoint, *options)
    online = ClassConditionalFlow.from_pretrained(tmp_path / "online/model")
    assert online.config["averaged"] is False
    assert online.flow.settings.num_flows == [3, 1]
