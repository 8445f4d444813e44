"""A trained model as the model of a run: the same numbers, no test image that it was trained on, one line otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_release import SHARED, make_released_state

from nfpi.data.writer import write_image_set
from nfpi.flows.dequantization import dequantize
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.model import ClassConditionalFlow, TrainedFlow
from nfpi.priors.gaussian import GaussianPrior
from nfpi.results.tables.rows import TableRow
from nfpi.runs import CANDIDATE, GENERATED, OWN, Run
from nfpi.runtime.divergence import mark_diverged

from .conftest import ROOT, SmallRun, call, check_call, format_options, list_files, read_error_line, read_json

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
    check_call(
        *complete_run.make_command(
            "evaluate",
            model=folder / "model",
            history=None,
            initial=None,
            identity=own(complete_run.identity).to_json(),
            output=folder,
        )
    )
    found, expected = (read_json(path / "metrics.json")["metrics"] for path in (folder, complete_run.folder))
    assert found.pop("unseen") == 80
    assert expected.keys() - found.keys() == {"hours", "seconds_per_epoch", "beta_fit"}
    assert {name: value for name, value in found.items() if name not in TIMES} == {
        name: expected[name] for name in found.keys() - TIMES
    }
    candidates = []
    for temperature in complete_run.temperatures:
        wildcards = own(complete_run.tested).wildcards | {"temperature": f"{temperature:g}"}
        generated, candidate = (tmp_path / template.format(**wildcards) for template in (GENERATED, CANDIDATE))
        at = {"temperature": temperature}
        check_call(*complete_run.make_command("generate", **at, model=folder / "model", output=generated))
        check_call(*complete_run.make_command("train-classifier", **at, generated=generated, output=candidate))
        candidates.append(candidate)
    identity = own(complete_run.tested).to_json()
    check_call(
        *complete_run.make_command("test-classifier", *candidates, identity=identity, output=tmp_path / "tested")
    )
    tested = complete_run.root / complete_run.tested.folder
    found, expected = (read_json(path / "metrics.json")["metrics"] for path in (tmp_path / "tested", tested))
    assert "cnn_acc" in found
    assert found == expected


def test_the_seed_is_that_of_noise_and_samples(complete_run, saved, tmp_path):
    check_call(*import_model(complete_run, saved, tmp_path / "run", seed=7))
    assert TrainedFlow.read(tmp_path / "run/model").seed == 7
    check_call(*complete_run.make_command("refit-prior", model=tmp_path / "run/model", output=tmp_path / "refitted"))
    assert TrainedFlow.read(tmp_path / "refitted/model").config["prior"]["refit"] == "moments"


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
    replace(TrainedFlow.read(saved), digests=None).write(saved)
    check_call(*import_model(complete_run, saved, tmp_path / "run"))
    assert "unseen" not in TrainedFlow.read(tmp_path / "run/model").config


def test_a_model_whose_fit_diverged_is_a_result_too(trained_run, fault, tmp_path):
    mark_diverged([tmp_path / "saved" / name for name in ("config.json", "model.safetensors")], fault)
    check_call(*import_model(trained_run, tmp_path / "saved", tmp_path / "run"))
    assert read_json(tmp_path / "run/model/config.json") == {"diverged": fault.record}


def test_a_model_records_its_training_images_in_few_bytes(complete_run):
    model = TrainedFlow.read(complete_run.model)
    assert model.digests is not None
    assert model.digests.nbytes == 8 * 200


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 5}, "expected a model with λ = 5, received one with λ = 100"),
        ({"model": "missing"}, "missing: there is no such file"),
        ({"model": "README.md"}, "expected a checkpoint of tensors"),
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
    assert TrainedFlow.read(tmp_path / "run/model").classes == TrainedFlow.read(saved).classes


# ---- released checkpoints -----------------------------------------------------------------------------------


def write_splits(folder: Path, images: np.ndarray, labels: np.ndarray, classes: int) -> Path:
    """Write the same images as all splits of a data set."""
    for split in ("train", "validation", "test"):
        names = [str(label) for label in range(classes)]
        write_image_set(folder / split, images, labels, names, name="toy", split=split, flip=False)
    return folder


def make_row(checkpoint: Path, data: Path, folder: Path) -> dict[str, Any]:
    """Import and evaluate a checkpoint, and return its row of a table."""
    run = Run(dataset="toy", flow="theirs", prior=OWN, weight=0.0, seed=0)
    output = folder / run.folder
    check_call("import-model", checkpoint, *format_options(data=data, output=output))
    options = {"data": data, "model": output / "model", "identity": run.to_json(), "output": output}
    check_call("evaluate", *format_options(**options))
    check_call("collect", *format_options(name="mine", runs=[run.to_json()], root=folder, output=folder / "metrics"))
    row = TableRow(experiment=0, label="theirs", dataset="toy", flow="theirs", prior=OWN, flow_runs=(run,))
    options = {
        "name": "mine",
        "table": {"metrics": ["nf_acc", "bits_per_dim"]},
        "rows": [row.model_dump(mode="json")],
        "metrics": folder / "metrics/mine.csv",
        "reference": ROOT / "workflow/reference/paper.csv",
        "output": folder / "tables",
    }
    check_call("table", *format_options(**options))
    text = (folder / "tables/mine.md").read_text(encoding="utf-8")
    assert "Whether these imported models were trained on test images is not known: theirs" in text
    metrics: dict[str, Any] = read_json(output / "metrics.json")["metrics"]
    return metrics


@pytest.mark.skipif(not SHARED.is_dir(), reason="the released checkpoint is not here")
def test_the_released_checkpoint_is_a_row_with_the_latents_that_it_must_have(tmp_path):
    expected = np.load(SHARED / "expected.npz")
    images = expected["images_uint8"].transpose(0, 2, 3, 1)
    labels = expected["ema_class_log_prob"].argmax(1)
    metrics = make_row(SHARED / "checkpoint.ckpt", write_splits(tmp_path / "splits", images, labels, 10), tmp_path)
    assert metrics["nf_acc"] > 50, "it classifies as expected, up to the dequantisation noise"
    model = TrainedFlow.read(tmp_path / "toy/theirs/own/lambda=0/seed=0/model")
    with torch.no_grad():
        z, log_abs_det = model.flow(dequantize(torch.from_numpy(expected["images_uint8"]), None))
    torch.testing.assert_close(z, torch.from_numpy(expected["ema_z"]), atol=1e-3, rtol=0)
    torch.testing.assert_close(log_abs_det, torch.from_numpy(expected["ema_log_abs_det"]), atol=2e-2, rtol=0)
    reference = torch.from_numpy(expected["ema_class_log_prob"]).double()
    torch.testing.assert_close(model.prior.log_prob(z), reference, atol=0, rtol=1e-4)


def test_a_checkpoint_of_another_depth_is_a_row(make_images, tmp_path):
    images = make_images((1, 8, 8))
    torch.manual_seed(0)
    flow = MatrixExponentialFlow((1, 8, 8), [3, 1], [1, 2], [4, 6])
    flow.initialize(torch.rand(20, 1, 8, 8))
    prior = GaussianPrior(torch.randn(3, 64), torch.ones(3, 64))
    torch.save({"state_dict": make_released_state(flow, prior, "flow.")}, tmp_path / "online.ckpt")
    data = write_splits(tmp_path / "splits", images.images, images.labels, 3)
    state = make_released_state(flow, prior, "ema.ema_model.") | make_released_state(flow, prior, "flow.")
    torch.save({"state_dict": state}, tmp_path / "a.ckpt")
    assert make_row(tmp_path / "a.ckpt", data, tmp_path)["parameters"] > 0
    assert TrainedFlow.read(tmp_path / "toy/theirs/own/lambda=0/seed=0/model").flow.settings == flow.settings
