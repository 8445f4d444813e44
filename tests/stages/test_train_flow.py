"""Trainings of flows by hand: interrupted ones, learned Gaussians, and random initial ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from nfpi.model import ClassConditionalFlow
from nfpi.priors.files import load_prior
from nfpi.runtime.tensors import load_tensors

from .conftest import STAGE, call, check_call, list_files, read_error_line, read_json

EVERY_STEP = {"checkpoint_minutes": 1e-9}
FILES = set(STAGE["train-flow"].outputs.values())


def assert_same_models(one: Path, other: Path) -> None:
    """Bit for bit: flow and Gaussians."""
    left, right = (load_tensors(folder / "model/model.safetensors")[0] for folder in (one, other))
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.equal(right[name]), name


# ---- a run that is cut --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"learning_rate": 0.02}, 5),
        ({"epochs": 4}, 5),
        ({"workers": 1, "checkpoint_minutes": 1e-8, "sample_every_epochs": 1}, 7),
    ],
    ids=["learning rate", "epochs", "how it is run"],
)
def test_a_checkpoint_is_used_by_trainings_of_the_same_result(
    trained_run, tmp_path, monkeypatch, change, first, cut_after
):
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert call(*trained_run.make_command("train-flow", training=EVERY_STEP, output=tmp_path)) == 130
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        check_call(*trained_run.make_command("train-flow", training=EVERY_STEP | change, output=tmp_path))
    assert made[0] == first  # of steps 5 to 12
    if first == 7:
        assert list_files(tmp_path) == FILES | {f"samples/epoch={epoch:04}.png" for epoch in (2, 3)}
        assert_same_models(tmp_path, trained_run.folder)


# ---- what is seen of it while it runs -----------------------------------------------------------------------


def test_what_is_seen_of_a_training_stands_beside_its_outputs(trained_run, tmp_path):
    check_call(*trained_run.make_command("train-flow", training={"sample_every_epochs": 2}, output=tmp_path))
    assert list_files(tmp_path) == FILES | {"samples/epoch=0002.png"}
    assert_same_models(tmp_path, trained_run.folder)
    assert "samples" not in (tmp_path / "model.manifest.json").read_text()
    check_call("verify", tmp_path)


def test_what_tracks_a_training_and_is_not_installed_is_named_before_the_work(
    started_run, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for stage in ("start-flow", "train-flow"):
        command = started_run.make_command(stage, training={"tracking": "tensorboard"}, output=tmp_path / stage)
        assert call(*command) == 1
        assert "tensorboard" in read_error_line(capsys)
        assert list_files(tmp_path) == set()


# ---- Gaussians that are learned, and random ones ------------------------------------------------------------

LEARN = {
    "epoch": {"method": "gradient_descent", "learning_rate": 0.05},
    "step": {"method": "gradient_descent", "every": "step", "learning_rate": 0.01},
    "released": {"method": "gradient_descent", "objective": "released"},
    "fits": {"method": "repeated_fixed_point", "alpha": 5.0, "unbiased_variance": False},
}


@pytest.fixture
def learn(started_run) -> Callable[..., tuple[str, ...]]:
    """Arguments of a training that learns its Gaussians, from the initial ones."""

    def arguments(output: Path, how: str, weight: float = 50, **changes: object) -> tuple[str, ...]:
        learned = {"prior": None, "learn": LEARN[how] | changes, "weight": weight}
        return started_run.make_command("train-flow", training=EVERY_STEP, output=output, **learned)

    return arguments


@pytest.mark.parametrize("how", LEARN)
def test_a_training_that_learns_its_gaussians_writes_them(started_run, learn, how, tmp_path):
    check_call(*learn(tmp_path, how))
    model = ClassConditionalFlow.from_pretrained(tmp_path / "model")
    assert (model.config["start"], model.seed, model.config["prior"]["lambda"]) == ("data", 3, 50)
    assert LEARN[how].items() <= model.config["prior"]["settings"].items()
    initial, _ = load_prior(started_run.initial / "prior.safetensors")
    assert (model.prior.mean - initial.mean).abs().max() > 0.01
    assert model.prior.variance.min() > (0.25 if how != "fits" else 0)
    log = pd.read_csv(tmp_path / "log.csv")
    assert log["prior_loss"].isna().tolist() == [True, False, False]
    model = {"model": tmp_path / "model", "history": None, "identity": None}
    check_call(*started_run.make_command("evaluate", **model, output=tmp_path))
    record = read_json(tmp_path / "metrics.json")
    assert record["settings"]["prior"]["method"] == LEARN[how]["method"]
    assert "hours" not in record["metrics"]


@pytest.mark.parametrize("change", [{"weight": 60}, {"power": 2}])
def test_a_checkpoint_of_another_learner_is_not_used(learn, tmp_path, monkeypatch, change, cut_after):
    with monkeypatch.context() as patch:
        cut_after(patch, 2)
        assert call(*learn(tmp_path, "epoch")) == 130
    with monkeypatch.context() as patch:
        made = cut_after(patch, 99)
        check_call(*learn(tmp_path, "epoch", **change))
    assert made[0] == 5


def test_gaussians_that_are_neither_fitted_nor_learned_stay(started_run, tmp_path):
    check_call(*started_run.make_command("train-flow", prior=None, output=tmp_path))
    initial, _ = load_prior(started_run.initial / "prior.safetensors")
    model = ClassConditionalFlow.from_pretrained(tmp_path / "model")
    assert model.prior.mean.equal(initial.mean)
    assert model.prior.variance.equal(initial.variance)
    assert model.config["prior"]["lambda"] == 0
    assert pd.read_csv(tmp_path / "log.csv")["prior_loss"].isna().all()


@pytest.mark.parametrize(
    ("stage", "changes", "named"),
    [
        ("fit-prior", {"prior": {"method": "gradient_descent"}}, "method 'gradient_descent': "),
        ("train-flow", {"prior": None, "learn": {"method": "fixed_point"}}, "received fixed_point"),
        ("train-flow", {"prior": None, "learn": LEARN["released"] | {"every": "step"}}, "objective: "),
    ],
)
def test_a_method_that_cannot_be_is_refused_in_one_line(started_run, tmp_path, capsys, stage, changes, named):
    assert call(*started_run.make_command(stage, **changes, output=tmp_path / "new")) == 1
    assert named in read_error_line(capsys)
    assert not (tmp_path / "new").exists()


def test_random_initial_means(started_run, tmp_path):
    for seed in (3, 4):
        check_call(*started_run.make_command("start-flow", start="random", seed=seed, output=tmp_path / str(seed)))
    (one, header), (other, _) = (load_prior(tmp_path / f"{seed}/prior.safetensors") for seed in (3, 4))
    assert header == {"start": "random", "seed": 3, "lambda": 0.0}
    assert (one.variance == 1).all()
    assert not one.mean.equal(other.mean)
    assert abs(one.mean.mean()) < 0.2  # of 640 numbers
    assert abs(one.mean.std() - 1) < 0.15
