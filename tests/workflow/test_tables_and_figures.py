"""Every table and every figure: what is planned, in both presets, and what a change makes again."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import pytest

from .conftest import (
    Job,
    Project,
    clone_project,
    list_collection_jobs,
    list_flow_jobs_of_run,
    list_jobs_of_run,
    make_images,
    make_plan,
)

LATENT = "digits/mef/fpi/lambda=10000/seed=0"
REAL = "digits/no_flow/seed=0"


def stages(jobs: set[Job]) -> Counter[str]:
    """How many jobs there are of each stage."""
    return Counter(stage for stage, _ in jobs)


def classifier(folder: str, name: str, augmentation: str) -> set[Job]:
    """Training and test of a classifier trained on real images."""
    run = f"{folder}/{name}/augmentation={augmentation}"
    return {("train-classifier", f"{run}/trained"), ("test-classifier", run)}


def plan(project: Project, **overlay: Any) -> set[Job]:
    return project.plan_jobs("all", overlay=overlay)


@pytest.mark.parametrize("target", ["", "figure1"])
def test_a_second_call_does_nothing(complete_project: Project, target: str) -> None:
    assert "Nothing to be done" in complete_project.run_snakemake(*target.split(), "--dry-run").stdout


def test_all_of_the_demo_is_made_once(complete_project: Project) -> None:
    made = Counter(call["stage"] for call in complete_project.read_calls())
    config = make_plan("demo").config
    backbones = 2 * 2  # Glow and the transformer, each at λ = 0 and one more
    assert made == {
        "prepare-data": 1,
        "start-flow": 3 + 2,  # data, identity, random; those of the other backbones
        "fit-prior": 8 + 2,  # four λ of fpi, two of mean_only and of variance_only
        "train-flow": 20
        + backbones,  # fits, λ = 0, random means, two λ of four policies of NFGD, two mixtures by gradient
        "evaluate": 20 + backbones,
        "generate": 9 + backbones,  # tables 2, 3 and 7
        "augment": 1,
        "train-classifier": 9 + backbones + 9,  # on generated images, and of tables 5 and 6
        "test-classifier": 9 + backbones + 9,
        "figure": len(config.figures),
        "collect": len(config.tables),
        "table": len(config.tables),
        "claims": 1,
    }


def test_the_paper_preset_plans_every_run_of_the_paper(fresh_project: Project) -> None:
    text = fresh_project.run_snakemake("all", "--config", "preset=paper", "--dry-run", "--printshellcmds").stdout
    jobs = Counter(line.split()[6] for line in text.splitlines() if line.startswith("Shell command: exec nfpi "))
    backbones = 2 * 2  # CIFAR10 under Glow and the transformer
    fewer = 3 + 1  # rows of 500 and of 50 images a class
    flows = 11 + 15 + 1 + backbones + fewer  # CIFAR10, CIFAR100, ImageNet
    tested = 4 + 8 + backbones + fewer  # runs of tables 2, 3 and 7
    generated = tested * 6  # six temperatures each
    released = 2  # the released schedule, on images that are there
    assert jobs == {
        "prepare-data": 2 + 3,
        "encode-data": 1,
        "download-weights": 1,
        "start-flow": 3 + 3 + 1 + 2 + (2 + 1),
        "fit-prior": 3 + 7 + 1 + 2 + (2 + 1),
        "train-flow": flows,
        "evaluate": flows - 1,  # no table asks how ImageNet's flow classifies
        "generate": generated,
        "augment": 3,
        "train-classifier": generated + released * 6 + 2 * 4 + 5,
        "test-classifier": tested + released + 2 * 4 + 5,
        "figure": 6,
        "collect": 8,
        "table": 8,
        "claims": 1,
    }


def test_a_classifier_is_trained_anew_and_what_starts_from_it(complete_project: Project) -> None:
    changed = plan(complete_project, classifiers={"eva02_pretrained": {"epochs": 3}})
    assert changed == list_collection_jobs("table6") | classifier(REAL, "eva02_pretrained", "none") | set().union(
        *(classifier(REAL, "eva02", name) for name in ("none", "standard")),
        *(classifier(LATENT, "eva02", name) for name in ("nfa", "standard+nfa")),
    )


@pytest.mark.parametrize(
    ("setting", "seen_by"),
    [
        ({"nfa_probability": 0.9, "workers": 1, "checkpoint_minutes": 1}, [(LATENT, "nfa"), (LATENT, "standard+nfa")]),
        ({"standard": {"mixup": 0.3}}, [(REAL, "standard"), (LATENT, "standard+nfa")]),
    ],
    ids=["nfa", "standard"],
)
def test_an_augmentation_touches_the_classifiers_that_see_it(
    complete_project: Project, setting: dict[str, Any], seen_by: list[tuple[str, str]]
) -> None:
    changed = plan(complete_project, classifiers={"swin": setting})
    runs = [classifier(folder, "swin", augmentation) for folder, augmentation in seen_by]
    assert changed == set().union(*runs) | list_collection_jobs("table5")


def test_latent_augmentation_touches_nothing_but_its_variants(complete_project: Project) -> None:
    runs = [classifier(LATENT, name, both) for name in ("swin", "eva02") for both in ("nfa", "standard+nfa")]
    assert plan(complete_project, nfa={"strength": 0.25}) == set().union(*runs) | list_collection_jobs(
        "table5", "table6"
    ) | {
        ("augment", f"{LATENT}/augmented"),
        ("figure", "figures/figure2"),
    }


def test_a_policy_of_gradient_descent_touches_its_own_flow(complete_project: Project) -> None:
    runs = [f"digits/mef/nfgd_linear/lambda={weight}/seed=0" for weight in ("10000", "30000")]
    changed = plan(complete_project, priors={"nfgd_linear": {"learning_rate": 0.2}})
    assert changed == list_collection_jobs("table1") | set().union(*map(list_flow_jobs_of_run, runs))


def test_a_new_row_is_a_line(complete_project: Project) -> None:
    row = {"label": "averaged π", "dataset": "digits", "prior": "averaged", "lambdas": [1e3], "classifier": None}
    run = "digits/mef/averaged/lambda=1000/seed=0"
    changed = plan(
        complete_project,
        priors={"averaged": {"scale": "average"}},
        tables={"mine": {"experiments": [row, {"dataset": "digits", "lambdas": [1e4], "classifier": None}]}},
    )
    assert changed == list_collection_jobs("mine") | list_flow_jobs_of_run(run) | {("fit-prior", f"{run}/fit")}


@pytest.mark.parametrize(
    "figures",
    [
        {"figure1": {"perplexity": 20}, "samples": {"temperatures": [1.0]}, "residuals": {"lambdas": [1e3]}},
        {"figure2": {"variants": 2}, "convergence_map": {"lambdas": [1e3]}},
    ],
    ids=" ".join,
)
def test_what_a_figure_shows_touches_that_figure(complete_project: Project, figures: dict[str, Any]) -> None:
    assert plan(complete_project, figures=figures) == {("figure", f"figures/{name}") for name in figures}


def test_two_backbones_in_one_table_are_trained_each(fresh_project: Project) -> None:
    rows = [{"dataset": "digits", "flow": flow, "lambdas": [0, 1e4]} for flow in ("mef", "glow")]
    runs = [
        f"digits/{flow}/{where}/seed=0"
        for flow in ("mef", "glow")
        for where in ("baseline/lambda=0", "fpi/lambda=10000")
    ]
    initial = {("start-flow", f"digits/{flow}/initial/data/seed=0") for flow in ("mef", "glow")}
    planned = fresh_project.plan_jobs("mine", overlay={"tables": {"mine": {"experiments": rows}}})
    assert planned == initial | {("prepare-data", "digits/splits")} | list_collection_jobs("mine") | set().union(
        *map(list_jobs_of_run, runs)
    )


def test_settings_of_a_backbone_touch_its_own_runs(complete_project: Project) -> None:
    runs = [f"digits/glow/{where}/seed=0" for where in ("baseline/lambda=0", "fpi/lambda=10000")]
    initial = ("start-flow", "digits/glow/initial/data/seed=0")
    of_glow = set().union(*map(list_jobs_of_run, runs)) | list_collection_jobs("table7")
    assert plan(complete_project, flows={"glow": {"training": {"batch_size": 64}}}) == of_glow | {initial}
    fits = {job for job in of_glow if job[0] == "fit-prior"}
    assert plan(complete_project, flows={"glow": {"training": {"epochs": 50}}}) == of_glow - fits


MINE = "results/demo/tables/mine.csv"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which a table of a data set's latents is made, beside the images; tests only plan in it."""
    project = clone_project(tmp_path_factory.mktemp("encoded") / "clone")
    images = make_images(project.folder / "a/images", side=32)
    shutil.copytree(images, project.folder / "b/images")
    make_images(project.folder / "a/others", side=32, count=4)
    for autoencoder, content in (("a/one", "1"), ("b/one", "1"), ("a/two", "2")):
        for name in ("config.json", "diffusion_pytorch_model.safetensors"):
            project.write(f"{autoencoder}/{name}", content)
    project.run_snakemake(MINE, overlay=latents(project))
    return project


def latents(project: Project, **changes: Any) -> dict[str, Any]:
    """A table of latents; paths among the changes are relative to the clone."""
    dataset = {"source": "imagefolder", "folder": "a/images", "vae": "a/one", "real_labels": True, **changes}
    paths = {name: str(project.folder / dataset[name]) for name in ("folder", "vae")}
    experiment = {"dataset": "imagenet", "lambdas": [10], "classifier": "swin", "augmentation": "nfa"}
    table = {"metrics": ["top1"], "experiments": [experiment]}
    return {"datasets": {"imagenet": dataset | paths}, "tables": {"mine": table}}


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"vae": "b/one", "folder": "b/images", "encode_batch_size": 7}, None),
        ({"vae": "a/two"}, "encode-data"),
        ({"folder": "a/others"}, "encode-data"),
        ({"image_size": 64}, "encode-data"),
        ({"real_labels": False}, "test-classifier"),
    ],
    ids=["moved", "another autoencoder", "other images", "another size", "how it is scored"],
)
def test_latents_are_encoded_again_where_they_would_differ(
    encoded: Project, changes: dict[str, Any], stage: str | None
) -> None:
    planned = stages(encoded.plan_jobs(MINE, overlay=latents(encoded, **changes)))
    first = ["encode-data", "start-flow", "fit-prior", "train-flow", "augment", "train-classifier", "test-classifier"]
    assert planned == Counter([*first[first.index(stage) :], "collect", "table"] if stage else [])
