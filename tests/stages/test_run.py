"""The stages of a run one after the other, as the workflow calls them, and what each leaves."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from nfpi.config.metrics import list_computed_metrics
from nfpi.data.batches import load_batches
from nfpi.data.store import read_image_set
from nfpi.model import ClassConditionalFlow
from nfpi.priors.files import load_prior
from nfpi.results.recorded.predictions import read_predictions
from nfpi.runs import CANDIDATE, GENERATED
from nfpi.runtime.randomness import make_generator

from .conftest import call, check_call, format_options, list_files, read_error_line, read_json

# ---- what is there at the end -------------------------------------------------------------------------------


def test_the_histories_of_training_and_fit(complete_run):
    assert pd.read_csv(complete_run.folder / "log.csv")["epoch"].tolist() == [1, 2, 3]
    fitted = pd.read_csv(complete_run.folder / "fit/fixed_point.csv")
    assert list(fitted) == ["iteration", "mean_residual", "variance_residual"]
    assert fitted["iteration"].tolist() == list(range(1, len(fitted) + 1))
    assert fitted.iloc[-1][["mean_residual", "variance_residual"]].max() <= 0.1


def test_the_model_has_the_fitted_gaussians_and_says_how_it_was_made(complete_run):
    model = ClassConditionalFlow.from_pretrained(complete_run.model)
    fitted, header = load_prior(complete_run.folder / "fit/prior.safetensors")
    assert torch.equal(model.prior.mean, fitted.mean)
    assert torch.equal(model.prior.variance, fitted.variance)
    assert (header["start"], header["seed"], header["lambda"], header["method"]) == ("data", 3, 100, "fixed_point")
    assert model.config["prior"]["lambda"] == 100
    assert model.config["training"]["epochs"] == 3
    assert (model.seed, model.config["step"], model.config["start"]) == (3, 12, "data")
    assert model.classes == [str(digit) for digit in range(10)]
    assert model.flow.description["settings"]["num_flows"] == [1]


# ---- metrics and predictions --------------------------------------------------------------------------------


def test_the_metrics_of_a_flow(complete_run):
    record = read_json(complete_run.folder / "metrics.json")
    measured = {"nf_acc", "nf_top5", "bits_per_dim", *list_computed_metrics()}
    assert measured | {f"validation_{name}" for name in measured} < record["metrics"].keys()
    assert record["metrics"]["validation_nll_calibrated"] <= record["metrics"]["validation_nll"]
    assert (record["n"], record["seed"]) == (80, 3)
    assert record["run"] == {"dataset": "digits", "flow": "mef", "prior": "fpi", "lambda": 100, "seed": 3}
    assert np.mean(record["per_class_accuracy"]) == pytest.approx(record["metrics"]["nf_acc"])  # classes of one size
    assert min(record["per_class_accuracy"]) == record["metrics"]["worst_class_acc"]
    flow = ClassConditionalFlow.from_pretrained(complete_run.model).flow
    assert record["metrics"]["parameters"] == sum(parameter.numel() for parameter in flow.parameters()) / 1e6
    seconds = pd.read_csv(complete_run.folder / "log.csv")["seconds"]
    assert record["metrics"]["hours"] == pytest.approx(seconds.sum() / 3600)
    assert record["metrics"]["seconds_per_epoch"] == pytest.approx(seconds.median())


def test_a_flow_whose_samples_overflow_is_measured_but_for_the_time_of_sampling(complete_run, tmp_path, monkeypatch):
    monkeypatch.setattr("nfpi.sampling._draw", lambda flow, prior, labels, *_: torch.full((len(labels), 1), torch.nan))
    output = tmp_path / "lambda=100/seed=3"
    check_call(*complete_run.make_command("evaluate", output=output))
    metrics, usual = (read_json(folder / "metrics.json")["metrics"] for folder in (output, complete_run.folder))
    assert usual.keys() - metrics.keys() == {"seconds_per_1000_samples"}
    assert metrics["nf_acc"] == usual["nf_acc"]


def test_the_metrics_of_a_classifier(complete_run):
    tested = read_json(complete_run.folder / "resnet18/metrics.json")
    compared = tested["settings"]["compared"]
    metrics = tested["metrics"]
    assert {f"cnn_{name}" for name in list_computed_metrics()} < metrics.keys()
    assert metrics["validation_cnn_acc"] == max(compared.values())
    assert f"temperature={metrics['temperature']:g}" == max(compared, key=lambda name: compared[name])
    assert tested["run"] == {**complete_run.identity.to_json(), "classifier": "resnet18"}
    assert (tested["n"], tested["seed"]) == (80, 3)
    trained = read_json(complete_run.locate_folder(CANDIDATE, 0.8) / "metrics.json")
    assert "run" not in trained
    assert trained["metrics"] == {"validation_cnn_acc": compared["temperature=0.8"]}


def test_predictions_of_a_flow_are_those_of_its_model(complete_run):
    predictions = read_predictions(complete_run.folder / "predictions.npz")
    test = read_image_set(complete_run.splits / "test")
    assert np.array_equal(predictions.label, test.labels)
    model = ClassConditionalFlow.from_pretrained(complete_run.model)
    log_prob = []
    with torch.no_grad():  # log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x| of the images with their noise
        for index, (images, _) in enumerate(load_batches(test, 100, seed=3)):
            x = model.domain.to_flow(images, make_generator("cpu", 3, "evaluate", index))
            z, log_abs_det = model.flow(x)
            log_prob.append(model.prior.log_prob(z.double()) + log_abs_det[:, None])
    expected = torch.cat(log_prob)
    own = expected.gather(1, torch.from_numpy(test.labels.astype(np.int64))[:, None]).squeeze(1)
    np.testing.assert_allclose(predictions.log_prob, own.numpy(), rtol=1e-6)
    assert np.array_equal(predictions.predicted, expected.argmax(1).numpy())
    np.testing.assert_allclose(predictions.class_log_prob, expected.log_softmax(1).numpy(), rtol=1e-6, atol=1e-6)
    metrics = read_json(complete_run.folder / "metrics.json")["metrics"]
    assert 100 * np.mean(predictions.predicted == predictions.label) == metrics["nf_acc"]
    bits = model.domain.bits_per_dim(torch.tensor(-float(own.mean()), dtype=torch.float64), 64)
    assert float(bits) == pytest.approx(metrics["bits_per_dim"], rel=1e-6)


def test_predictions_of_a_classifier_are_its_log_softmax(complete_run):
    predictions = read_predictions(complete_run.folder / "resnet18/predictions.npz")
    assert predictions.class_log_prob.shape == (80, 10)
    assert predictions.validation_class_log_prob.shape == (72, 10)
    probability = np.exp(predictions.class_log_prob.astype(np.float64))
    np.testing.assert_allclose(probability.sum(1), 1, atol=1e-6)
    own = predictions.class_log_prob[np.arange(80), predictions.label]
    np.testing.assert_allclose(own, predictions.log_prob, rtol=1e-6, atol=1e-6)
    metrics = read_json(complete_run.folder / "resnet18/metrics.json")["metrics"]
    assert 100 * np.mean(predictions.predicted == predictions.label) == metrics["cnn_acc"]


# ---- generated images and the choice among their classifiers ------------------------------------------------


def test_generated_images_are_balanced_and_of_the_flows_form(complete_run):
    folder = complete_run.locate_folder(GENERATED, 0.8)
    images, labels = (np.load(folder / f"{name}.npy") for name in ("images", "labels"))
    assert images.shape == (40, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.tolist() == np.repeat(np.arange(10), 4).tolist()
    meta = read_json(folder / "meta.json")
    assert meta["extra"].items() >= {"temperature": 0.8, "seed": 3, "flip": False}.items()
    assert meta["split"] == "generated"


@pytest.mark.parametrize("best", ["0.8", "1"])
def test_the_classifier_that_is_best_on_the_validation_split_is_tested(complete_run, best, tmp_path):
    for temperature in ("0.8", "1"):
        candidate = tmp_path / temperature
        candidate.mkdir()
        model = complete_run.locate_folder(CANDIDATE, float(temperature)) / "model.safetensors"
        (candidate / "model.safetensors").write_bytes(model.read_bytes())
        accuracy = 70.0 if temperature == best else 60.0
        (candidate / "metrics.json").write_text(json.dumps({"metrics": {"validation_cnn_acc": accuracy}}))
    check_call(*complete_run.make_command("test-classifier", tmp_path / "0.8", tmp_path / "1", output=tmp_path))
    record = read_json(tmp_path / "metrics.json")
    assert record["metrics"]["temperature"] == float(best)
    assert record["metrics"]["validation_cnn_acc"] == 70
    assert record["settings"]["compared"] == {"0.8": 70 if best == "0.8" else 60, "1": 70 if best == "1" else 60}


def test_export_writes_images_that_other_programs_read(complete_run, tmp_path):
    images = complete_run.locate_folder(GENERATED, 1)
    check_call("export", *format_options(images=images, output=tmp_path / "png"))
    files = list_files(tmp_path / "png")
    assert len(files) == 40
    assert {file.split("/")[0] for file in files} == {str(digit) for digit in range(10)}


@pytest.mark.parametrize("name", [".git/HEAD", "3/photo.jpg", "3/00000.png"])
def test_export_deletes_nothing_of_the_users(complete_run, tmp_path, name, capsys):
    (tmp_path / "png" / name).parent.mkdir(parents=True)
    (tmp_path / "png" / name).touch()
    options = format_options(images=complete_run.locate_folder(GENERATED, 1), output=tmp_path / "png")
    assert call("export", *options) == 1
    assert "expected a new or an empty folder" in read_error_line(capsys)
    assert list_files(tmp_path / "png") == {name}


# ---- tables of several runs ---------------------------------------------------------------------------------


def test_a_table_shows_all_runs(complete_run, tables):
    shown = pd.read_csv(tables / "table2.csv")
    assert shown["lambda"].tolist() == [100, 1e6]
    metrics = read_json(complete_run.folder / "metrics.json")["metrics"]
    assert shown["nf_acc"][0] == metrics["nf_acc"]
    assert shown["bits_per_dim"][0] == metrics["bits_per_dim"]
    assert shown["cnn_acc"][0] == read_json(complete_run.folder / "resnet18/metrics.json")["metrics"]["cnn_acc"]
    assert shown[["nf_acc", "bits_per_dim", "cnn_acc"]].iloc[1].isna().all()
    assert shown["status"][0] == "ok"
    assert "diverged" in shown["status"][1]
    assert "diverged" in (tables / "table2.md").read_text()
