"""Every table and every figure: what is planned, in both presets, and what a change makes again."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from nfpi.stages.jobs import Job
from nfpi.stages.prepare_data import EncodeData
from nfpi.stages.test_classifier import TestClassifier

from .conftest import (
    Project,
    list_collection_jobs,
    list_jobs_of_run,
    make_images,
    make_planning,
    resolve_settings,
)

LATENT = "digits/mef/fpi/lambda=10000/seed=0"
REAL = "digits/no_flow/seed=0"


def classifier(folder: str, name: str, augmentation: str) -> set[tuple[str, str]]:
    """Training and test of a classifier trained on real images."""
    run = f"{folder}/{name}/augmentation={augmentation}"
    return {("train-classifier", f"{run}/trained"), ("test-classifier", run)}


def plan(project: Project, **overlay: Any) -> set[tuple[str, str]]:
    return project.plan_jobs("all", overlay=overlay)


def test_all_of_the_demo_is_made_once(complete_project: Project) -> None:
    made = [(call["stage"], call["arguments"]) for call in complete_project.read_calls()]
    config = resolve_settings("demo").config
    assert all(made.count(job) == 1 for job in made)
    count = Counter(stage for stage, _ in made)
    assert count["figure"] == len(config.figures)
    assert count["table"] == len(config.tables)
    assert count["train-flow"] == count["evaluate"] > count["fit-prior"] > count["start-flow"] > 1
    assert count["claims"] == count["prepare-data"] == 1
    assert "Nothing to be done" in complete_project.run_snakemake("--dry-run").stdout


def test_a_classifier_is_trained_anew_and_what_starts_from_it(complete_project: Project) -> None:
    changed = plan(complete_project, classifiers={"eva02_pretrained": {"epochs": 3}})
    assert changed == list_collection_jobs("table6") | classifier(REAL, "eva02_pretrained", "none") | set().union(
        *(classifier(REAL, "eva02", name) for name in ("none", "standard")),
        *(classifier(LATENT, "eva02", name) for name in ("nfa", "standard+nfa")),
    )


def test_what_a_figure_shows_touches_that_figure(complete_project: Project) -> None:
    figures = {"figure1": {"perplexity": 20}, "samples": {"temperatures": [1.0]}, "residuals": {"lambdas": [1e3]}}
    assert plan(complete_project, figures=figures) == {("figure", f"figures/{name}") for name in figures}


def test_settings_of_a_backbone_touch_its_own_runs(complete_project: Project) -> None:
    runs = [f"digits/glow/{where}/seed=0" for where in ("baseline/lambda=0", "fpi/lambda=10000")]
    initial = ("start-flow", "digits/glow/initial/data/seed=0")
    of_glow = set().union(*map(list_jobs_of_run, runs)) | list_collection_jobs("table7")
    assert plan(complete_project, flows={"glow": {"training": {"batch_size": 64}}}) == of_glow | {initial}
    fits = {job for job in of_glow if job[0] == "fit-prior"}
    assert plan(complete_project, flows={"glow": {"training": {"epochs": 50}}}) == of_glow - fits


ENCODE = (EncodeData, {"dataset": "imagenet", "splits": "splits"})
SCORE = (
    TestClassifier,
    {"dataset": "imagenet", "source": "no_flow", "seed": "0", "classifier": "swin", "augmentation": "none"},
)


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A folder with images and autoencoders, also copied and others."""
    shutil.copytree(make_images(tmp_path / "a/images", side=32), tmp_path / "b/images")
    make_images(tmp_path / "a/others", side=32, count=4)
    for autoencoder, content in (("a/one", "1"), ("b/one", "1"), ("a/two", "2")):
        (tmp_path / autoencoder).mkdir()
        for name in ("config.json", "diffusion_pytorch_model.safetensors"):
            (tmp_path / autoencoder / name).write_text(content)
    return tmp_path


def keys_of_latents(places: Path, **changes: Any) -> tuple[str | None, str | None]:
    """Keys of the latents of a data set, and of the test of a classifier of them."""
    dataset = {"source": "imagefolder", "folder": "a/images", "vae": "a/one", "real_labels": True, **changes}
    paths = {name: str(places / dataset[name]) for name in ("folder", "vae")}
    experiment = {"dataset": "imagenet", "prior": None, "classifier": "swin", "augmentation": "none"}
    tables = {"mine": {"metrics": ["top1"], "experiments": [experiment]}}
    keys = make_planning(datasets={"imagenet": dataset | paths}, tables=tables).keys
    return keys.of(Job.of(*ENCODE)), keys.of(Job.of(*SCORE))


@pytest.mark.parametrize(
    ("changes", "encoded", "tested"),
    [
        ({"vae": "b/one", "folder": "b/images", "encode_batch_size": 7}, False, False),
        ({"vae": "a/two"}, True, True),
        ({"folder": "a/others"}, True, True),
        ({"real_labels": False}, False, True),
    ],
    ids=["moved", "another autoencoder", "other images", "how it is scored"],
)
def test_latents_are_encoded_again_where_they_would_differ(
    places: Path, changes: dict[str, Any], encoded: bool, tested: bool
) -> None:
    before, after = keys_of_latents(places), keys_of_latents(places, **changes)
    assert None not in before
    assert (before[0] != after[0], before[1] != after[1]) == (encoded, tested)
