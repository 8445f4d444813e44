"""What rules hand to stages, and what of it is compared with the last call."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nfpi.config import hash_extension
from nfpi.config.extensions import REGISTRIES
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import Run
from nfpi.stages import Collect, MakeTable
from nfpi.workflow import Inputs, Params

from .conftest import make_plan

RUN = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": "1000", "seed": "0"}
FOLDER = "results/demo/digits/mef/fpi/lambda=1000/seed=0"
OF_REAL = {"dataset": "digits", "source": "no_flow", "seed": "0", "classifier": "swin", "augmentation": "none"}
METRIC = """
from nfpi.config import register_metric

register_metric("noted", label="only noted")

@register_metric("brier", label="Brier")
def brier(log_prob, labels):
    return 0.0
"""
PRIOR = """
from nfpi.config import PRIORS
PRIORS.register("own", builder=print, uses_weight=False, learned=False)
"""


def make_params(preset: str = "demo", **overrides: Any) -> Params:
    plan = make_plan(preset, **overrides)
    return Params(plan, Inputs(plan))


@pytest.fixture
def extension(tmp_path: Path) -> Iterator[Callable[[str, str], Path]]:
    """Write a file of the user's own, which is forgotten afterwards."""
    written = []

    def write(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content)
        written.append((tmp_path / name).resolve())
        return written[-1]

    yield write
    for path in written:
        for registry in REGISTRIES:
            registry.forget(path)


# ---- data ---------------------------------------------------------------------------------------------------


def test_how_a_data_set_is_made_leaves_out_what_other_stages_override() -> None:
    params = make_params("paper")
    told = json.loads(params.dataset({"dataset": "cifar100", "splits": "splits"}, 1))
    assert told["source"] == "cifar100"
    assert "overrides" not in told


LATENTS = {"source": "imagefolder", "folder": "/a/images", "vae": "/a/one", "real_labels": True}
"""What is in the folders is compared by itself: see test_sources.py."""


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"vae": "/b/two", "folder": "/b/others", "encode_batch_size": 7, "real_labels": False}, False),
        ({"overrides": {"training": {"epochs": 7}}}, False),
        ({"image_size": 64}, True),
        ({"split_seed": 1}, True),
    ],
)
def test_a_data_set_is_made_again_where_its_images_would_differ(changes: dict[str, Any], matters: bool) -> None:
    wildcards = {"dataset": "mine", "splits": "splits"}
    before, after = (
        make_params(datasets={"mine": settings}).dataset_content_settings(wildcards)
        for settings in (LATENTS, LATENTS | changes)
    )
    assert (before != after) is matters


def test_pixels_may_lie_anywhere() -> None:
    wildcards = {"dataset": "cifar10", "splits": "splits"}
    contents = {
        make_params(datasets={"cifar10": {"folder": folder}}).dataset_content_settings(wildcards)
        for folder in ("/a/one", "/b/two", None)
    }
    assert len(contents) == 1


def test_the_splits_of_a_seed_are_made_as_those_of_all_seeds_with_that_split_seed() -> None:
    own, common = (make_params(datasets={"digits": {"split_seed": seed}}) for seed in ("per_seed", 3))
    of_seed, of_all = {"dataset": "digits", "splits": "splits/seed=3"}, {"dataset": "digits", "splits": "splits"}
    assert own.dataset(of_seed, 1) == common.dataset(of_all, 1)
    assert own.dataset_content_settings(of_seed) == common.dataset_content_settings(of_all)
    assert (own.split_remark(of_seed, 1), common.split_remark(of_all, 1)) == (", split of seed 3", "")


def test_real_labels_are_asked_for_where_the_data_set_has_them() -> None:
    params = make_params("paper")
    assert params.real_label_options({"dataset": "imagenet"}) == ["--real-labels"]
    assert params.real_label_options({"dataset": "cifar10"}) == []


# ---- flows and priors -----------------------------------------------------------------------------------------


def test_a_flow_is_handed_over_without_the_settings_of_its_training() -> None:
    flow = json.loads(make_params().flow(RUN | {"flow": "glow"}))
    assert flow["kind"] == "glow"
    assert "training" not in flow


def test_a_training_has_the_settings_of_its_backbone_and_on_top_those_of_its_data_set() -> None:
    params = make_params(
        training={"batch_size": 10, "warmup_steps": 11, "epochs": 12},
        flows={"mef": {"training": {"warmup_steps": 21, "epochs": 22}}},
        datasets={"digits": {"overrides": {"training": {"epochs": 32}}}},
    )
    told = json.loads(params.training(RUN, 1))
    assert (told["batch_size"], told["warmup_steps"], told["epochs"]) == (10, 21, 32)


@pytest.mark.parametrize("name", ["workers", "checkpoint_minutes", "evaluate_every", "tracking", "sample_every_epochs"])
def test_how_a_training_is_run_and_watched_is_not_compared(name: str) -> None:
    params = make_params()
    assert name in json.loads(params.training(RUN, 1))
    assert name not in json.loads(params.training_result_settings(RUN))
    assert name not in json.loads(params.initial_state_settings(RUN))


def test_an_initial_state_depends_on_the_length_of_the_training_where_its_schedule_does() -> None:
    assert "epochs" not in json.loads(make_params().initial_state_settings(RUN))
    cosine = make_params(flows={"mef": {"training": {"schedule": "cosine"}}})
    assert "epochs" in json.loads(cosine.initial_state_settings(RUN))
    assert "epochs" in json.loads(cosine.training_result_settings(RUN))


def test_a_training_is_told_how_it_comes_by_its_gaussians() -> None:
    params = make_params()
    assert params.prior_options(RUN) == ["--prior", f"{FOLDER}/fit/prior.safetensors"]
    assert params.prior_options(RUN | {"prior": "baseline", "weight": "0"}) == []
    learn, settings, weight, text = params.prior_options(RUN | {"prior": "nfgd_linear"})
    assert (learn, weight, text) == ("--learn", "--weight", "1000")
    assert settings == params.prior(RUN | {"prior": "nfgd_linear"})
    assert json.loads(settings)["method"] == "gradient_descent"


def test_what_is_done_with_a_flow_follows_the_overrides_of_its_data_set() -> None:
    overrides = {"generation": {"per_class": 7, "batch_size": 8}, "nfa": {"axes": 9}}
    params = make_params(datasets={"cifar10": {"overrides": overrides}})
    of_cifar10 = RUN | {"dataset": "cifar10"}
    assert (params.images_per_class(of_cifar10), params.generation_batch_size(of_cifar10)) == (7, 8)
    assert params.images_per_class(RUN) == 120
    assert json.loads(params.nfa(of_cifar10))["axes"] == 9
    assert json.loads(params.nfa(RUN))["axes"] == 16
    assert json.loads(params.evaluation(RUN))["timed_samples"] == 100


# ---- classifiers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("augmentation", "unseen"),
    [
        ("none", {"standard", "nfa_probability"}),
        ("standard", {"nfa_probability"}),
        ("nfa", {"standard"}),
        ("standard+nfa", set()),
    ],
)
def test_augmentations_that_a_classifier_does_not_see_are_not_compared(augmentation: str, unseen: set[str]) -> None:
    params = make_params()
    wildcards = OF_REAL | {"augmentation": augmentation}
    left_out = {"weights", "workers", "checkpoint_minutes", "keep"} | unseen
    assert (
        json.loads(params.classifier(wildcards, 1)).keys() - json.loads(params.classifier_result_settings(wildcards))
        == left_out
    )


def test_a_classifier_of_generated_images_sees_its_standard_augmentations() -> None:
    params = make_params()
    wildcards = RUN | {"classifier": "resnet18", "temperature": "1"}
    assert json.loads(params.classifier_result_settings(wildcards))["standard"]["crop_padding"] == 0


def test_a_classifier_of_real_images_is_told_what_it_learns_from() -> None:
    params = make_params()
    assert params.classifier_options(OF_REAL) == ["--augmentation", "none"]
    wildcards = OF_REAL | {"source": "mef/fpi/lambda=1000", "augmentation": "standard+nfa", "classifier": "eva02"}
    trained = "results/demo/digits/no_flow/seed=0/eva02_pretrained/augmentation=none/trained/model.safetensors"
    assert params.classifier_options(wildcards) == [
        *("--augmentation", "standard"),
        *("--augmented", f"{FOLDER}/augmented"),
        *("--start-from", trained),
    ]
    pretrained = OF_REAL | {"dataset": "imagenet", "classifier": "eva02_pretrained"}
    options = make_params("paper").classifier_options(pretrained)
    assert options[2:] == ["--classifier.weights", "results/downloads/eva02.safetensors"]


def test_variants_are_made_as_their_folder_says() -> None:
    params = make_params()
    displacements = [params.displacement(RUN | {"variants": folder}, 1) for folder in ("augmented", "augmented_noise")]
    assert displacements == ["mix", "noise"]
    with_noise = OF_REAL | {"source": "mef/fpi/lambda=1000", "augmentation": "noise"}
    assert params.classifier_options(with_noise) == [
        *("--augmentation", "none", "--augmented", f"{FOLDER}/augmented_noise")
    ]
    assert "nfa_probability" in json.loads(params.classifier_result_settings(with_noise))


# ---- identities and tables ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wildcards", "run"),
    [
        (RUN, Run(dataset="digits", flow="mef", prior="fpi", weight=1000, seed=0)),
        (
            RUN | {"classifier": "resnet18"},
            Run(dataset="digits", flow="mef", prior="fpi", weight=1000, seed=0, classifier="resnet18"),
        ),
        (OF_REAL, Run(dataset="digits", seed=0, classifier="swin", augmentation="none")),
        (
            OF_REAL | {"source": "mef/fpi/lambda=1000", "augmentation": "nfa"},
            Run(
                **{"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": 1000, "seed": 0},
                **{"classifier": "swin", "augmentation": "nfa"},
            ),
        ),
    ],
    ids=["flow", "of generated images", "of real images", "of augmented images"],
)
def test_a_stage_is_told_the_identity_of_its_run(wildcards: dict[str, str], run: Run) -> None:
    assert Run.from_json(json.loads(make_params().run(wildcards))) == run


def test_a_table_is_collected_from_its_runs_and_told_its_rows() -> None:
    params = make_params()
    wildcards = {"table": "table2"}
    runs = [Run.from_json(record) for record in json.loads(params.runs_of_table(wildcards))]
    files = [f"results/demo/{run.folder}/metrics.json" for run in runs]
    assert files == params.inputs.metrics_of_table(wildcards)[::2]
    rows = json.loads(params.rows_of_table(wildcards))
    of_rows = {Run.from_json(run) for row in rows for run in [*row["flow_runs"], *row["classifier_runs"]]}
    assert of_rows == set(runs)
    assert json.loads(params.table(wildcards)).keys() == {"title", "best_only", "best_by", "metrics", "literature"}


@pytest.mark.parametrize("table", make_plan("paper").config.tables)
def test_the_stages_of_a_table_get_the_runs_of_one_seed_and_list_all(table: str) -> None:
    """Linux limits an argument to 2¹⁷ bytes, and the whole command of a rule is an argument of bash."""
    params = make_params("paper", seeds=list(range(100)))
    runs, rows, seeds = params.runs_of_table({"table": table}), params.rows_of_table({"table": table}), params.seeds({})
    of_table = json.loads(params.table({"table": table}))
    assert len(runs + rows + seeds) < 2**16
    common: dict[str, Any] = {"name": table, "seeds": json.loads(seeds), "output": "new"}
    collected = Collect(runs=json.loads(runs), root="results/paper", **common)
    expected = params.inputs.metrics_of_table({"table": table})[::2]
    assert sorted(map(str, collected.list_input_files())) == sorted(expected)
    made = MakeTable(rows=json.loads(rows), table=of_table, metrics="m.csv", reference="r.csv", **common)
    assert made.list_rows() == list_table_rows(params.plan.config, table)


def test_a_figure_is_told_what_it_shows_and_reads() -> None:
    params = make_params()
    assert json.loads(params.figure("residuals")({}))["lambdas"] == [1e3, 1e4, 3e4, 1e5]
    assert json.loads(params.files_of_figure("residuals")({})).keys() == {"iterations"}
    assert json.loads(params.settings_read_by_figure("residuals")({}))["prior"]["tolerance"] == 0.1
    assert json.loads(params.settings_read_by_figure("samples")({})) == {}
    assert params.caption("samples")({}, 1).startswith("Images drawn")


# ---- the user's extensions ------------------------------------------------------------------------------------


def test_a_prior_follows_its_file_and_others_do_not(extension: Callable[[str, str], Path]) -> None:
    file = extension("prior.py", PRIOR)
    params = make_params(extensions=[str(file)], priors={"mine": {"method": "own"}})
    of_prior = params.code("prior")
    assert of_prior(RUN | {"prior": "mine"}) == hash_extension(file)
    assert of_prior(RUN) == of_prior(RUN | {"prior": "baseline"}) == ""
    assert params.code("flow", "learned_prior")(RUN | {"prior": "mine"}) == ""  # the fit depends on it
    assert params.extension_options(RUN, 1) == ["--extensions", str(file)]


def test_trainings_depend_on_the_file_of_a_learned_prior(extension):
    """And on nothing else that they did not depend on before."""
    path = extension("learned.py", PRIOR.replace("learned=False", "learned=True"))
    params = make_params(extensions=[str(path)], priors={"mine": {"method": "own"}})
    of_training = params.code("flow", "learned_prior")
    assert of_training(RUN | {"prior": "mine"}) == hash_extension(path)
    for prior in ("fpi", "nfgd_linear", "baseline"):
        assert of_training(RUN | {"prior": prior}) == ""


def test_a_metric_is_measured_on_the_runs_whose_tables_show_it(extension: Callable[[str, str], Path]) -> None:
    file = extension("metric.py", METRIC)
    rows: dict[str, list[dict[str, Any]]] = {
        "of_flows": [{"dataset": "digits", "lambdas": [0]}],
        "of_generated": [{"dataset": "digits", "lambdas": [10]}],
        "of_real": [{"dataset": "digits", "prior": None, "classifier": "swin", "augmentation": "none"}],
        "of_none": [{"dataset": "digits", "lambdas": [0, 10, 100]}],
    }
    metrics = {"of_flows": ["nf_acc", "brier"], "of_generated": ["cnn_brier"], "of_real": ["top1", "brier", "noted"]}
    tables = {name: {"metrics": metrics.get(name, ["nf_acc"]), "experiments": rows[name]} for name in rows}
    params = make_params(extensions=[str(file)], tables=tables)
    flows = {weight: RUN | {"prior": "fpi" if weight else "baseline", "weight": str(weight)} for weight in (0, 10, 100)}
    measured = (
        {("flow", weight): params.metric_options(wildcards) for weight, wildcards in flows.items()}
        | {
            ("generated", weight): params.metric_options(wildcards | {"classifier": "resnet18"})
            for weight, wildcards in flows.items()
        }
        | {("real", name): params.metric_options(OF_REAL | {"classifier": name}) for name in ("swin", "eva02")}
    )
    asked = {key for key, options in measured.items() if options}
    assert asked == {("flow", 0), ("generated", 10), ("real", "swin")}
    assert all(measured[key] == ["--metrics", "brier"] for key in asked)
    code = params.code("metrics")
    assert code(flows[0]) == code(OF_REAL) == hash_extension(file)
    assert code(flows[100]) == ""


def test_what_is_not_compared_depends_on_threads() -> None:
    # Snakemake compares no params function that takes `threads`.
    unseen = {
        name
        for name, function in inspect.getmembers(Params, inspect.isfunction)
        if "threads" in inspect.signature(function).parameters
    }
    assert unseen == {"dataset", "split_remark", "training", "displacement", "classifier", "extension_options"}
