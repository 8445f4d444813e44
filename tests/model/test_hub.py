"""Folders with a card, what is refused in them, and the hub."""

from __future__ import annotations

import copy
import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelHubMixin
from huggingface_hub.errors import HTTPError

from nfpi import ClassConditionalFlow
from nfpi.model import TrainedFlow
from nfpi.priors import GaussianPrior
from nfpi.runtime.formats import FormatError

# ---- folders ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(fitted: ClassConditionalFlow, tmp_path: Path) -> Path:
    fitted.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_is_the_same_model(fitted, images, folder):
    model = ClassConditionalFlow.from_pretrained(folder)
    assert (model.log_prob(images.images) == fitted.log_prob(images.images)).all()
    assert model.config == fitted.config
    assert TrainedFlow.read(str(folder)).classes == fitted.classes


def test_metrics_and_licence_of_a_card_outlive_loading(fitted, images, held_out, tmp_path):
    metrics = fitted.evaluate(held_out.images, held_out.labels)
    one = replace(fitted, config=copy.deepcopy(fitted.config))
    one.save_pretrained(tmp_path / "one", metrics=metrics, license="mit")
    ClassConditionalFlow.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    first, second = ((tmp_path / name / "README.md").read_text() for name in ("one", "two"))
    assert "license: mit" in first
    assert second == first
    refitted = ClassConditionalFlow.from_pretrained(tmp_path / "two").refit(images.images, images.labels)
    assert "license: mit" in refitted.generate_model_card().content


def test_the_card_says_what_is_known(fitted, held_out, tmp_path):
    metrics = fitted.evaluate(held_out.images, held_out.labels)
    fitted.save_pretrained(tmp_path, metrics=metrics, license="cc-by-4.0")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["license"], facts["library_name"]) == ("cc-by-4.0", "nfpi")
    found = {entry["type"]: entry["value"] for entry in facts["model-index"][0]["results"][0]["metrics"]}
    assert found["accuracy"] == pytest.approx(metrics["nf_acc"], abs=1e-3)
    low, high = metrics["nf_acc_interval"]
    for part in ("λ = 100", "`class1`", "8×8", f"{low:.2f} to {high:.2f}"):
        assert part in text, part


def test_an_existing_card_is_kept_with_a_warning(fitted, folder, caplog):
    card = folder / "README.md"
    card.write_text("mine", encoding="utf-8")
    fitted.save_pretrained(folder, license="mit")
    assert card.read_text(encoding="utf-8") == "mine"
    assert str(card) in caplog.text


@pytest.mark.parametrize(
    ("metrics", "shown", "on_hub"),
    [
        ({"ece": np.float32(1.5), "n": 7}, "| 1.50 % |", {"ece": 1.5}),
        ({"nf_acc": float("nan"), "bits_per_dim": 2, "f1": "?"}, "| 2.000 |", {"bits_per_dim": 2.0}),
        ({"worst_class_acc": 5.0, "worst_class": "a|b"}, r"| 5.0 % (`a\|b`) |", {}),
        ({}, "Not measured.", {}),
    ],
)
def test_the_card_shows_the_metrics_that_are_given(fitted, metrics, shown, on_hub):
    card = fitted.generate_model_card(metrics=metrics)
    assert shown in card.text
    assert {result.metric_type: result.metric_value for result in card.data.eval_results or ()} == on_hub


@pytest.mark.parametrize(
    ("metrics", "message"),
    [({"accuracy": 0.9}, "accuracy"), ({"nf_acc": "high"}, "'high'")],
)
def test_other_metrics_are_refused_before_anything_is_written(fitted, tmp_path, monkeypatch, metrics, message):
    with pytest.raises(ValueError, match=f"^metrics: .*{message}"):
        fitted.save_pretrained(tmp_path / "model", metrics=metrics)
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(ModelHubMixin, "push_to_hub", lambda *arguments, **options: pytest.fail("pushed"))
    with pytest.raises(ValueError, match=r"^metrics: "):
        fitted.push_to_hub("own/model", metrics=metrics)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"prior": {"method": "fixed_point", "iterations": 9, "converged": False}}, "not converge in 9 iterations"),
        ({"prior": {"method": "gradient_descent"}}, "learned along with f"),
        ({"prior": {}, "start": "release"}, "checkpoint"),
    ],
)
def test_the_card_says_where_the_gaussians_are_from(fitted, changes, part):
    assert part in replace(fitted, config=fitted.config | changes).generate_model_card().text


def add_class(model: ClassConditionalFlow) -> None:
    more = torch.cat([model.prior.mean, model.prior.mean[:1]])
    model.prior = GaussianPrior(more, torch.ones_like(more))


def rename_class(model: ClassConditionalFlow) -> None:
    names = ["a", "b", "a"]
    model.config = {**model.config, "data": {**model.data, "classes": names}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.flow.double(), "float64"),
        (lambda model: setattr(model.flow, "kind", "unknown"), "unknown"),
        (add_class, "prior"),
        (rename_class, "classes"),
        (lambda model: model.config.update(seed="one"), "seed"),
    ],
)
def test_a_model_that_could_not_be_read_is_not_written(fitted, folder, change, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = copy.deepcopy(fitted)
    change(model)
    with pytest.raises(ValueError, match=message):
        model.write(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_is_no_model(folder, monkeypatch):
    (folder / "x.ckpt").touch()
    monkeypatch.chdir(folder.parent)
    for name in ("model/x.ckpt", folder / "x.ckpt"):
        with pytest.raises(FormatError, match=r"x\.ckpt: "):
            ClassConditionalFlow.from_pretrained(name)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "flow.ckpt"])
def test_a_pickle_is_never_read(folder, name):
    (folder / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1)}, folder / name)
    with pytest.raises(FormatError, match=name):
        ClassConditionalFlow.from_pretrained(folder)


def edit(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config[key] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: os.truncate(folder / "model.safetensors", 5000), "model.safetensors"),
        (lambda folder: edit(folder, "format", 9), "9"),
        (lambda folder: edit(folder, "seed", "one"), "config.json"),
        (lambda folder: edit(folder, "data", {"name": None, "classes": ["a"], "extra": {}}), "config.json"),
        (lambda folder: edit(folder, "data", {"name": None, "classes": 3 * ["a"], "extra": {}}), "classes"),
        (lambda folder: edit(folder, "prior", "gaussian"), "config.json"),
    ],
)
def test_a_damaged_folder_is_one_line(folder, change, message):
    change(folder)
    with pytest.raises(FormatError) as error:
        ClassConditionalFlow.from_pretrained(folder)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a/b/c", "./flow", "/flow", "owner/", "a b/c", Path("owner/none")])
def test_what_is_neither_a_folder_nor_a_repository_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FormatError, match=str(name)) as error:
        ClassConditionalFlow.from_pretrained(name)
    assert "\n" not in str(error.value)


# ---- the hub ------------------------------------------------------------------------------------------------


def test_a_model_is_pushed_and_pulled(fitted, images, tmp_path, monkeypatch):
    """A folder stands in for the hub."""
    hub = tmp_path / "hub"
    api = SimpleNamespace(
        create_repo=lambda repo_id, **_: SimpleNamespace(repo_id=repo_id),
        upload_folder=lambda repo_id, folder_path, **_: shutil.copytree(folder_path, hub / repo_id),
    )
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda **_: api)
    monkeypatch.setattr("nfpi.model.hub.snapshot_download", lambda name, **_: str(hub / name))
    fitted.push_to_hub("own/flow", license="mit")
    assert sorted(path.name for path in (hub / "own/flow").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    found = ClassConditionalFlow.from_pretrained("own/flow")
    assert (found.log_prob(images.images) == fitted.log_prob(images.images)).all()
    assert "license: mit" in found.generate_model_card().content


def test_an_error_of_the_connection_is_one_line(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise HTTPError("403 Forbidden")

    monkeypatch.setattr("nfpi.model.hub.snapshot_download", fail)
    with pytest.raises(FormatError, match=r"own/model: .*403"):
        ClassConditionalFlow.from_pretrained("own/model")


def test_a_folder_needs_no_network(folder, images, tmp_path):
    """Nor does it make the hub's cache."""
    shutil.copytree(folder, tmp_path / "own/flow")
    program = "from nfpi import ClassConditionalFlow; print(ClassConditionalFlow.from_pretrained('own/flow').classes)"
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.stdout.strip() == str(images.classes), done.stderr[-2000:]
    assert not (tmp_path / "home").exists()


def test_a_full_disk_is_not_called_an_unknown_repository(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nfpi.model.hub.snapshot_download", fail)
    with pytest.raises(OSError, match="No space"):
        ClassConditionalFlow.from_pretrained("own/model")
