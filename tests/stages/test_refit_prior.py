"""Gaussians of a trained flow estimated again, and what the later stages make of such a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nfpi.data.batches import load_batches
from nfpi.data.store import read_image_set
from nfpi.model import ClassConditionalFlow
from nfpi.runtime.divergence import Diverged
from nfpi.runtime.randomness import make_generator

from .conftest import SmallRun, call, check_call, read_error_line, read_json


def refit(run: SmallRun, folder: Path, how: str) -> ClassConditionalFlow:
    check_call(*run.make_command("refit-prior", refit=how, output=folder))
    return ClassConditionalFlow.from_pretrained(folder / "model")


def evaluate(run: SmallRun, folder: Path, prior: str) -> dict[str, float]:
    identity = replace(run.identity, prior=prior).to_json()
    check_call(*run.make_command("evaluate", model=folder / "model", identity=identity, output=folder))
    metrics: dict[str, float] = read_json(folder / "metrics.json")["metrics"]
    return metrics


def test_the_measures_of_a_run_are_those_of_numpy(trained_run):
    metrics = read_json(trained_run.folder / "metrics.json")["metrics"]
    model = ClassConditionalFlow.from_pretrained(trained_run.model)
    train = read_image_set(trained_run.splits / "train")
    latents = []
    for index, (images, _) in enumerate(load_batches(train, 100, seed=model.seed)):
        noise = make_generator(torch.device("cpu"), model.seed, "evaluate", index)
        with torch.no_grad():
            latents.append(model.flow(model.domain.to_flow(images, noise))[0].flatten(1).double())
    z, y = torch.cat(latents).numpy(), train.labels
    mu, v = model.prior.mean.numpy(), model.prior.variance.numpy()
    m = np.stack([z[y == k].mean(0) for k in range(len(mu))])
    a, b = mu - mu.mean(0), m - m.mean(0)
    expected = {
        "beta": (a * b / v).sum() / (a * a / v).sum(),
        "prior_separation": (a * a / v).mean(),
        "latent_separation": (b * b / v).mean(),
        "training_distance": ((z - mu[y]) ** 2 / v[y]).mean(),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_the_class_moments_are_not_mismatched(trained_run, tmp_path):
    model, trained = refit(trained_run, tmp_path, "moments"), ClassConditionalFlow.from_pretrained(trained_run.model)
    for name, weights in trained.flow.state_dict().items():
        assert torch.equal(model.flow.state_dict()[name], weights), name
    prior = {name: value for name, value in trained.config["prior"].items() if name not in ("iterations", "converged")}
    assert model.config == {**trained.config, "prior": {**prior, "refit": "moments"}}
    metrics = evaluate(trained_run, tmp_path, "fpi+moments")
    before = read_json(trained_run.folder / "metrics.json")["metrics"]
    assert metrics["mismatch"] == 0
    assert metrics["training_distance"] == pytest.approx(19 / 20)  # of 20 images a class, with the divisor n − 1
    assert metrics["bits_per_dim"] == pytest.approx(before["bits_per_dim"] - before["mismatch"])
    assert metrics["latent_separation"] != before["latent_separation"]  # in the metric of other variances
    assert metrics["relative_weight"] == before["relative_weight"]
    assert "beta" in before
    assert not {"beta", "beta_fit"} & metrics.keys()


def test_the_method_of_the_prior_fits_again(trained_run, tmp_path):
    model = refit(trained_run, tmp_path, "prior")
    assert model.config["prior"]["lambda"] == 100
    assert model.config["prior"]["refit"] == "prior"
    metrics = evaluate(trained_run, tmp_path, "fpi+prior")
    assert 0 < metrics["beta"] < 1
    assert "beta_fit" not in metrics


def test_it_is_the_models_own_method(trained_run, tmp_path):
    """`ClassConditionalFlow.refit`, up to the batches in which noise is drawn."""
    train = read_image_set(trained_run.splits / "train")
    trained = ClassConditionalFlow.from_pretrained(trained_run.model)
    check_call(*trained_run.make_command("refit-prior", batch_size=1024, output=tmp_path))
    expected = trained.refit(train.images, train.labels)
    found = ClassConditionalFlow.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(found.prior.mean, expected.prior.mean)
    torch.testing.assert_close(found.prior.variance, expected.prior.variance)


def test_classifiers_of_two_refits_are_not_compared(trained_run, tmp_path, capsys):
    candidates = []
    for how, temperature in (("moments", 0.8), ("prior", 1)):
        refit(trained_run, tmp_path / how, how)
        images, candidate = tmp_path / how / "images", tmp_path / how / f"temperature={temperature}"
        check_call(*trained_run.make_command("generate", model=tmp_path / how / "model", output=images))
        check_call(*trained_run.make_command("train-classifier", generated=images, output=candidate))
        candidates.append(candidate)
    identity = replace(trained_run.tested, prior="fpi+moments").to_json()
    options = {"identity": identity, "output": tmp_path / "test"}
    check_call(*trained_run.make_command("test-classifier", candidates[0], **options))
    assert "cnn_acc" in read_json(tmp_path / "test/metrics.json")["metrics"]
    capsys.readouterr()
    assert call(*trained_run.make_command("test-classifier", *candidates, **options)) == 1
    assert "the same refitted model" in read_error_line(capsys)


def test_a_divergence_is_passed_on(diverged_run, tmp_path):
    check_call(*diverged_run.make_command("refit-prior", output=tmp_path))
    with pytest.raises(Diverged):
        ClassConditionalFlow.from_pretrained(tmp_path / "model")
    identity = replace(diverged_run.identity, prior="fpi+moments").to_json()
    check_call(*diverged_run.make_command("evaluate", model=tmp_path / "model", identity=identity, output=tmp_path))
    assert (
        read_json(tmp_path / "metrics.json")["diverged"] == read_json(diverged_run.folder / "metrics.json")["diverged"]
    )


def test_a_second_fit_that_diverges_is_recorded(trained_run, tmp_path):
    """At a weight that the first fit survived: the latents have changed since."""
    model = ClassConditionalFlow.from_pretrained(trained_run.model)
    prior = model.config["prior"]
    block = {**prior, "lambda": 1e12, "settings": {**prior["settings"], "update": "exact"}}
    replace(model, config={**model.config, "prior": block}).write(tmp_path / "model")
    options = {"model": tmp_path / "model", "refit": "prior"}
    check_call(*trained_run.make_command("refit-prior", **options, output=tmp_path / "new"))
    fault = read_json(tmp_path / "new/model/config.json")["diverged"]
    assert fault["lambda"] == 1e12
