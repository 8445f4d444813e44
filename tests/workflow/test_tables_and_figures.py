"""Every table and every figure: what is planned, in both presets, and what a change makes again."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from .conftest import Job, Project, clone

LATENT = "digits/fpi/lambda=10000/seed=0"
REAL = "digits/real/seed=0"


def stages(jobs: set[Job]) -> Counter[str]:
    """How many jobs there are of each stage."""
    return Counter(stage for stage, _ in jobs)


def classifier(folder: str, name: str, augmentation: str) -> set[Job]:
    """Training and test of a classifier of real images."""
    leaf = f"{folder}/{name}/augmentation={augmentation}"
    return {("train-classifier", f"{leaf}/trained"), ("test-classifier", f"{leaf}/metrics.json")}


def collection(*tables: str) -> set[Job]:
    """What follows when values of tables have changed."""
    return {job for name in tables for job in (("collect", f"metrics/{name}.csv"), ("table", f"tables/{name}"))}


def plan(project: Project, **overlay: Any) -> set[Job]:
    return project.plan("all", overlay=overlay)


@pytest.mark.parametrize("target", ["", "all", "table6", "figure1", "convergence_map"])
def test_a_second_run_does_nothing(everything: Project, target: str) -> None:
    assert "Nothing to be done" in everything.snakemake(*target.split(), "--dry-run").stdout


def test_all_of_the_demo_is_made_once(everything: Project) -> None:
    made = Counter(call["stage"] for call in everything.calls())
    assert made == {
        "prepare-data": 1,
        "start-flow": 3,  # data, identity, random
        "fit-prior": 8,  # four λ of fpi, two of mean_only and of variance_only
        "train-flow": 20,  # these, λ = 0, random means, two λ of four policies of NFGD, two mixtures by gradient
        "evaluate": 20,
        "generate": 9,  # tables 2 and 3
        "augment": 1,
        "train-classifier": 9 + 9,  # on generated images, and of tables 5 and 6
        "test-classifier": 9 + 9,
        "embed": 1,
        "map-convergence": 1,
        "draw-augmentations": 1,
        "draw-samples": 1,
        "figure": 5,
        "collect": 6,
        "table": 6,
    }


def test_the_paper_preset_plans_every_run_of_the_paper(fresh: Project) -> None:
    text = fresh.snakemake("all", "--config", "preset=paper", "--dry-run", "--printshellcmds").stdout
    jobs = Counter(line.split()[4] for line in text.splitlines() if line.startswith("Shell command: exec nfpi "))
    flows = 11 + 15 + 1  # CIFAR10, CIFAR100, ImageNet
    generated = (4 + 8) * 6  # leaves of tables 2 and 3, six temperatures each
    assert jobs == {
        "prepare-data": 2,
        "encode-data": 1,
        "download-weights": 1,
        "start-flow": 3 + 3 + 1,
        "fit-prior": 3 + 7 + 1,
        "train-flow": flows,
        "evaluate": flows - 1,  # no table asks how ImageNet's flow classifies
        "generate": generated,
        "augment": 3,
        "train-classifier": generated + 2 * 4 + 5,
        "test-classifier": (4 + 8) + 2 * 4 + 5,
        "embed": 1,
        "map-convergence": 1,
        "draw-augmentations": 1,
        "draw-samples": 1,
        "figure": 5,
        "collect": 6,
        "table": 6,
    }


def test_a_classifier_is_trained_anew_and_what_starts_from_it(everything: Project) -> None:
    changed = plan(everything, classifiers={"eva02_pretrained": {"epochs": 3}})
    assert changed == collection("table6") | classifier(REAL, "eva02_pretrained", "none") | set().union(
        *(classifier(REAL, "eva02", name) for name in ("none", "standard")),
        *(classifier(LATENT, "eva02", name) for name in ("nfa", "standard+nfa")),
    )


@pytest.mark.parametrize(
    ("setting", "seen_by"),
    [
        ({"nfa_probability": 0.9}, [(LATENT, "nfa"), (LATENT, "standard+nfa")]),
        ({"standard": {"mixup": 0.3}}, [(REAL, "standard"), (LATENT, "standard+nfa")]),
        ({"workers": 1, "checkpoint_minutes": 1}, []),
    ],
    ids=["nfa", "standard", "no result"],
)
def test_an_augmentation_touches_the_classifiers_that_see_it(
    everything: Project, setting: dict[str, Any], seen_by: list[tuple[str, str]]
) -> None:
    changed = plan(everything, classifiers={"swin": setting})
    runs = [classifier(folder, "swin", augmentation) for folder, augmentation in seen_by]
    assert changed == (set().union(*runs) | collection("table5") if runs else set())


def test_latent_augmentation_touches_nothing_but_its_variants(everything: Project) -> None:
    runs = [classifier(LATENT, name, both) for name in ("swin", "eva02") for both in ("nfa", "standard+nfa")]
    assert plan(everything, nfa={"strength": 0.25}) == set().union(*runs) | collection("table5", "table6") | {
        ("augment", f"{LATENT}/augmented"),
        ("draw-augmentations", "figures/figure2"),
    }


def test_a_policy_of_gradient_descent_touches_its_own_flow(everything: Project) -> None:
    leaves = [f"digits/nfgd_linear/lambda={weight}/seed=0" for weight in ("10000", "30000")]
    changed = plan(everything, priors={"nfgd_linear": {"learning_rate": 0.2}})
    flows = {job for leaf in leaves for job in (("train-flow", leaf), ("evaluate", f"{leaf}/metrics.json"))}
    assert changed == collection("table1") | flows


def test_a_new_row_is_a_line(everything: Project) -> None:
    row = {"label": "averaged π", "dataset": "digits", "prior": "averaged", "lambdas": [1e3], "classifier": None}
    leaf = "digits/averaged/lambda=1000/seed=0"
    changed = plan(
        everything,
        priors={"averaged": {"scale": "average"}},
        tables={"mine": {"experiments": [row, {"dataset": "digits", "lambdas": [1e4], "classifier": None}]}},
    )
    assert changed == collection("mine") | {
        ("fit-prior", f"{leaf}/fit/prior.safetensors"),
        ("train-flow", leaf),
        ("evaluate", f"{leaf}/metrics.json"),
    }


@pytest.mark.parametrize(
    ("figure", "settings", "expected"),
    [
        ("figure1", {"perplexity": 20}, {("embed", "figures/embedding.csv"), ("figure", "figures/figure1")}),
        ("samples", {"temperatures": [1.0]}, {("draw-samples", "figures/samples")}),
        ("residuals", {"lambdas": [1e3]}, {("figure", "figures/residuals")}),
        ("convergence_map", {"lambdas": [1e3]}, {("map-convergence", "figures/convergence_map.csv")}),
    ],
)
def test_what_a_figure_shows_touches_that_figure(
    everything: Project, figure: str, settings: dict[str, Any], expected: set[Job]
) -> None:
    changed = plan(everything, figures={figure: settings})
    assert expected <= changed
    assert stages(changed).keys() <= {"embed", "figure", "draw-samples", "map-convergence"}
    assert all("figures/" in output for _, output in changed)


def test_a_preset_without_a_table_says_so(fresh: Project) -> None:
    process = fresh.snakemake("table5", "--config", "preset=cifar10_small", "--dry-run", check=False)
    assert process.returncode != 0
    assert "preset cifar10_small has no tables.table5" in process.stdout


LATENTS: dict[str, Any] = {
    "datasets": {"imagenet": {"source": "imagefolder", "folder": "/a/images", "vae": "/a/one", "real_labels": True}},
    "tables": {
        "mine": {
            "experiments": [
                {"dataset": "imagenet", "lambdas": [10], "classifier": "swin", "augmentation": "nfa"},
            ]
        }
    },
}
MINE = "results/demo/tables/mine.csv"


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone in which a table of a data set's latents is made; tests only plan in it."""
    project = clone(tmp_path_factory.mktemp("encoded") / "clone")
    project.snakemake(MINE, overlay=LATENTS)
    return project


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"vae": "/b/one", "folder": "/b/images", "encode_batch_size": 7}, None),
        ({"vae": "/a/two"}, "encode-data"),
        ({"folder": "/a/others"}, "encode-data"),
        ({"image_size": 64}, "encode-data"),
        ({"real_labels": False}, "test-classifier"),
    ],
    ids=["moved", "another autoencoder", "other images", "another size", "how it is scored"],
)
def test_latents_are_encoded_again_where_they_would_differ(
    encoded: Project, changes: dict[str, Any], stage: str | None
) -> None:
    overlay = LATENTS | {"datasets": {"imagenet": LATENTS["datasets"]["imagenet"] | changes}}
    planned = stages(encoded.plan(MINE, overlay=overlay))
    first = ["encode-data", "start-flow", "fit-prior", "train-flow", "augment", "train-classifier", "test-classifier"]
    assert planned == Counter([*first[first.index(stage) :], "collect", "table"] if stage else [])
