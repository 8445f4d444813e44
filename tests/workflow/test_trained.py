"""Rows of trained models: what Snakemake plans, and what it notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_digits

from nfpi import ClassConditionalFlow

from .conftest import Job, Project, list_collection_jobs, list_jobs_of_run
from .test_killed import SETTINGS

RUN = "digits/theirs/own/lambda={}/seed=0"
SPLITS: set[Job] = {("prepare-data", "digits/splits")}
HUB = {"kind": "trained", "model": "owner/name", "revision": "1" * 40, "lambda": 5}


def make_table(*experiments: dict[str, Any], model: Any = None, **settings: Any) -> dict[str, Any]:
    flows = {"theirs": model or {"kind": "trained", "model": "theirs", "lambda": 3e4}}
    table = {"experiments": [{"dataset": "digits", "flow": "theirs", **row} for row in experiments]}
    return {"flows": flows, "tables": {"mine": table | settings}}


def list_jobs_after_import(run: str) -> set[Job]:
    return {job for job in list_jobs_of_run(run) if job[0] not in ("train-flow", "fit-prior")}


@pytest.fixture
def project(fresh_project: Project) -> Project:
    """A clone with the folder of a model."""
    fresh_project.write("theirs/config.json", "settings")
    fresh_project.write("theirs/model.safetensors", "weights")
    return fresh_project


def test_a_trained_model_needs_no_training(project: Project) -> None:
    run, collection = RUN.format(30000), list_collection_jobs("mine")
    own = {("import-model", run)} | list_jobs_after_import(run)
    assert project.plan_jobs("mine", overlay=make_table({})) == SPLITS | own | collection
    run = RUN.format(5)
    planned = project.plan_jobs("mine", overlay=make_table({}, model=HUB))
    assert planned == SPLITS | {("import-model", run)} | list_jobs_after_import(run) | collection


def test_refits_of_a_trained_model(project: Project) -> None:
    run, refitted = RUN.format(30000), RUN.format(30000).replace("/own/", "/own+moments/")
    planned = project.plan_jobs("mine", overlay=make_table({"refit": "moments"}))
    assert planned - list_collection_jobs("mine") - SPLITS == {
        ("import-model", run),
        ("refit-prior", refitted),
        *list_jobs_after_import(refitted),
    }


def test_a_model_that_is_not_there_is_named_in_one_line(project: Project) -> None:
    (project.folder / "theirs/model.safetensors").unlink()
    line = project.read_refusal("mine", overlay=make_table({}))
    assert "flows.theirs.model: " in line
    assert "theirs/model.safetensors" in line
    line = project.read_refusal("mine", overlay=make_table({}, model={"kind": "trained", "model": "gone.ckpt"}))
    assert "gone.ckpt" in line


def fit(folder: Path, seed: int) -> None:
    digits = load_digits()
    images = (digits.images[:300] * 255 / 16).round().astype("uint8")[..., None]
    small = {"num_flows": [1], "num_blocks": [0], "hidden_channels": [4]}
    classes = [str(digit) for digit in range(10)]
    options: dict[str, Any] = {"flow": small, "epochs": 2, "seed": seed, "classes": classes, "progress": False}
    model = ClassConditionalFlow.fit(images, digits.target[:300], weight=100, **options)
    model.digests = None  # some of the images are in the test split
    model.save_pretrained(folder)


def test_another_content_is_noticed(fresh_project: Project) -> None:
    """By real stages, whatever Snakemake remembers."""
    model = {"kind": "trained", "model": "theirs", "lambda": 100}
    project, overlay = fresh_project, SETTINGS | make_table({"classifier": None}, model=model)
    project.use_real_stages()
    fit(project.folder / "theirs", seed=0)
    project.run_snakemake("mine", "--cores", "2", overlay=overlay)
    text = (project.folder / "results/demo/tables/mine.md").read_text()
    assert "Whether these imported models were trained on test images is not known" in text
    assert project.plan_jobs("mine", overlay=overlay) == set()
    fit(project.folder / "theirs", seed=1)
    planned = {stage for stage, _ in project.plan_jobs("mine", overlay=overlay)}
    assert planned == {"import-model", "evaluate", "table"}
