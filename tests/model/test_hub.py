"""Folders with a card, what is refused in them, and the hub."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import HfApi, RepoUrl
from huggingface_hub.errors import HTTPError

from nfpi import ClassConditionalFlow
from nfpi.model.hub import make_card
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
    assert ClassConditionalFlow.read(str(folder)).classes == fitted.classes


def test_a_folder_without_a_card_is_a_model_too(fitted, tmp_path):
    """As the stages write it."""
    fitted.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert ClassConditionalFlow.from_pretrained(tmp_path).classes == fitted.classes


def test_the_card_says_what_is_known(fitted, held_out, tmp_path):
    metrics = fitted.evaluate(held_out.images, held_out.labels)
    fitted.save_pretrained(tmp_path, metrics=metrics, license="cc-by-4.0")
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    _, header, text = card.split("---\n", 2)
    facts = yaml.safe_load(header)
    assert (facts["license"], facts["library_name"]) == ("cc-by-4.0", "nfpi")
    low, high = metrics["nf_acc_interval"]
    for part in ("λ = 100", "`class1`", "8×8", f"interval {low:.2f} to {high:.2f}", "cc-by-4.0", "@inproceedings"):
        assert part in text, part
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {name}" for name in ("Use", "Data", "Settings", "Metrics", "Limits", "Licence", "How to cite")
    ]


def test_an_existing_card_is_kept_with_a_warning(fitted, folder, caplog):
    card = folder / "README.md"
    card.write_text("mine", encoding="utf-8")
    fitted.save_pretrained(folder, license="mit")
    assert card.read_text(encoding="utf-8") == "mine"
    assert str(card) in caplog.text


@pytest.mark.parametrize(
    ("metrics", "row"),
    [
        ({"nf_acc": 90.0}, "| test |  | 90.0 % |  |  |  |"),
        ({"ece": np.float32(1.5), "n": 7, "f1": "?"}, "| test | 7 |  |  | 1.50 % |  |"),
        ({"n": 3, "worst_class_acc": 5.0, "worst_class": "a"}, "| test | 3 |  |  |  | 5.0 % (`a`) |"),
        ({}, "Not measured."),
    ],
)
def test_the_card_shows_the_metrics_that_are_given(fitted, metrics, row):
    assert row in make_card(fitted, metrics, None).text.splitlines()


def test_other_metrics_are_refused_before_anything_is_written(fitted, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^metrics: .*accuracy"):
        fitted.save_pretrained(tmp_path / "model", metrics={"accuracy": 0.9})
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(HfApi, "create_repo", lambda *arguments, **options: pytest.fail("pushed"))
    with pytest.raises(ValueError, match=r"^metrics: "):
        fitted.push_to_hub("own/model", metrics={"accuracy": 0.9})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "y, obtained by the method `fixed_point`."),
        ({"prior": {"method": "fixed_point", "iterations": 9, "converged": False}}, "did not converge in 9 iterations"),
        ({"prior": {"lambda": 0.0}}, "y, kept at their initial values."),
        ({"prior": {}, "start": "release"}, "y, read from a checkpoint of the paper's code."),
    ],
)
def test_the_card_says_where_the_gaussians_are_from(fitted, changes, sentence):
    model = replace(fitted, config=fitted.config | changes)
    assert sentence in make_card(model, None, None).text


def add_class(model: ClassConditionalFlow) -> None:
    more = torch.cat([model.prior.mean, model.prior.mean[:1]])
    model.prior = GaussianPrior(more, torch.ones_like(more))


def rename_class(model: ClassConditionalFlow) -> None:
    names = ["a", "b", "a"]
    model.config = {**model.config, "data": {**model.data, "classes": names}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
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


def test_names_of_classes_are_distinct(fitted):
    data = {**fitted.data, "classes": ["a", "b", "b"]}
    with pytest.raises(ValueError, match="classes"):
        replace(fitted, config={**fitted.config, "data": data})


def test_a_file_is_no_model(folder, monkeypatch):
    (folder / "x.ckpt").touch()
    monkeypatch.chdir(folder.parent)
    for name in ("model/x.ckpt", folder / "x.ckpt"):
        with pytest.raises(FormatError, match=r"x\.ckpt: "):
            ClassConditionalFlow.from_pretrained(name)


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
    asked: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self: HfApi, repo_id: str, **options: Any) -> RepoUrl:
        asked.append((repo_id, {"token": self.token, **options}))
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self: HfApi, *, repo_id: str, folder_path: str, **options: Any) -> str:
        asked.append((repo_id, options))
        shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
        return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(repo_id: str, allow_patterns: list[str], revision: str) -> str:
        asked.append((repo_id, {"revision": revision}))
        assert sorted(allow_patterns) == sorted(path.name for path in (tmp_path / "hub" / repo_id).iterdir())
        return str(tmp_path / "hub" / repo_id)

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr("nfpi.model.hub.snapshot_download", snapshot_download)
    pushed = fitted.push_to_hub("own/flow", license="mit", private=True, token="none", commit_message="first")
    assert pushed == "https://hub/own/flow/commit/1"
    assert "license: mit" in (tmp_path / "hub/own/flow/README.md").read_text(encoding="utf-8")
    model = ClassConditionalFlow.from_pretrained("own/flow", revision="1")
    assert (model.log_prob(images.images) == fitted.log_prob(images.images)).all()
    assert asked == [
        ("own/flow", {"token": "none", "private": True, "exist_ok": True}),
        ("own/flow", {"commit_message": "first"}),
        ("own/flow", {"revision": "1"}),
    ]


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


def test_an_error_of_the_connection_is_one_line(monkeypatch):
    def fail(*_: object, **__: object) -> str:
        raise HTTPError("403 Forbidden")

    monkeypatch.setattr("nfpi.model.hub.snapshot_download", fail)
    with pytest.raises(FormatError, match=r"own/model: .*403"):
        ClassConditionalFlow.from_pretrained("own/model")
