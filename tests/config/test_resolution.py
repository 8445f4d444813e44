"""From config.yaml, a preset and what the user passes to settings, or to one line that names the fault."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nfpi.config.base import ConfigError
from nfpi.runs import Layout, Run

# ---- what is laid over what ---------------------------------------------------------------------------------


def test_the_user_wins_over_the_preset_and_the_preset_over_the_rest(project):
    resolved = project.resolve()
    assert (resolved.preset, resolved.results) == ("small", Path("out"))
    training = resolved.config.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (10, 64, 1e-2)
    assert resolved.config.seeds == [1999]
    training = project.resolve_config({"training": {"epochs": 3, "learning_rate": 0.5}}).training
    assert (training.epochs, training.batch_size, training.learning_rate) == (3, 64, 0.5)


def test_the_user_chooses_the_preset_and_the_folder(project):
    resolved = project.resolve({"preset": "large", "results": "elsewhere"})
    assert (resolved.preset, resolved.results) == ("large", Path("elsewhere"))
    assert resolved.config.seeds == [1, 2]
    assert resolved.config.training.epochs == 100
    assert resolved.config.tables == {}


def test_a_single_seed_needs_no_brackets(project):
    assert project.resolve_config({"seeds": 2**63 - 1}).seeds == [2**63 - 1]


# ---- a data set's own settings ------------------------------------------------------------------------------


def test_null_may_be_written_as_snakemakes_config_reads_it(project):
    overrides = {"tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": ["0"], "classifier": "null"}]}}}
    (experiment,) = project.resolve_config(overrides).tables["table2"].experiments
    assert experiment.classifier is None


def test_overrides_hold_for_their_data_set_only(project):
    overrides = {"classifiers": {"resnet18": {"epochs": 50}}, "flows": {"mef": {"coupling": "affine"}}}
    config = project.resolve_config(
        datasets={"other": {"overrides": overrides}, "digits": {}}, classifiers={"resnet18": {"batch_size": 7}}
    )
    other = config.for_dataset("other")
    resnet18 = other.classifiers["resnet18"]
    assert (resnet18.epochs, resnet18.batch_size, other.flows["mef"].coupling) == (50, 7, "affine")
    assert other.training == config.training
    assert other.priors == config.priors
    assert config.for_dataset("digits") == config
    assert config.classifiers["resnet18"].epochs == 30


def test_another_backbone_of_a_data_set_is_not_trained_with_the_settings_of_the_common_one(project):
    flows = {"mef": {}, "glow": {"kind": "glow", "training": {"learning_rate": 2.0}}}
    overrides = {"flows": {"glow": {"kind": "transformer", "training": {"warmup_steps": 3}}}}
    config = project.resolve_config(flows=flows, datasets={"digits": {"overrides": overrides}, "other": {}})
    training = config.resolve_training("digits", "glow")
    assert (training.learning_rate, training.warmup_steps) == (0.01, 3)
    assert config.resolve_training("other", "glow").learning_rate == 2.0


def test_a_training_is_that_of_all_then_of_the_backbone_then_of_the_data_set(project):
    overrides = {"training": {"learning_rate": 3.0, "warmup_steps": 3}}
    flows = {"mef": {}, "glow": {"kind": "glow", "training": {"learning_rate": 2.0, "ema_power": 0.5}}}
    config = project.resolve_config(datasets={"digits": {}, "other": {"overrides": overrides}}, flows=flows)

    def of(dataset: str, flow: str) -> tuple[float, float, int, int]:
        training = config.resolve_training(dataset, flow)
        return training.learning_rate, training.ema_power, training.warmup_steps, training.batch_size

    assert of("digits", "mef") == (0.01, 0.75, 1000, 64)
    assert of("digits", "glow") == (2.0, 0.5, 1000, 64)
    assert of("other", "mef") == (3.0, 0.75, 3, 64)
    assert of("other", "glow") == (3.0, 0.5, 3, 64)


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("$NFPI_TEST/x", "/each/x"), ("~/${NFPI_TEST}", "/home/me//each"), ("plain", "plain")],
)
def test_a_folder_may_name_the_home_and_variables(project, monkeypatch, folder, expected):
    monkeypatch.setenv("NFPI_TEST", "/each")
    monkeypatch.setenv("HOME", "/home/me")
    assert project.resolve_config(datasets={"digits": {"folder": folder}}).datasets["digits"].folder == Path(expected)


# ---- the runs of experiments ---------------------------------------------------------------------------------


def test_zero_of_a_fixed_point_is_shared_and_that_of_gradient_descent_its_own(project):
    config = project.resolve_config()
    places = {name: config.run("digits", "mef", name, 0, 1).prior for name in config.priors}
    assert places == {"fpi": "baseline", "mean_only": "baseline-identity", "nfgd": "nfgd", "repeated": "baseline"}
    assert config.run("digits", "mef", "fpi", 1.0, 1).prior == "fpi"


def test_a_run_continues_from_the_initial_gaussians_of_its_prior(project):
    config = project.resolve_config()
    starts = {"fpi": "data", "mean_only": "identity", "nfgd": "data", "repeated": "data"}
    assert {name: config.start_of(name) for name in config.priors} == starts
    for name, start in starts.items():
        assert config.start_of(str(config.run("digits", "mef", name, 0, 1).prior)) == start
        assert config.start_of(str(config.run("digits", "mef", name, 1.0, 1).prior)) == start


def test_a_classifier_is_fine_tuned_from_the_run_without_augmentation_of_the_one_that_it_names(project):
    real = {"model": "swin", "train_on": "real"}
    config = project.resolve_config(
        {
            "classifiers": {"swin": real, "tuned": real | {"start_from": "swin"}},
            "datasets": {"other": {"overrides": {"classifiers": {"tuned": {"start_from": None}}}}},
        }
    )
    flow = Run(dataset="digits", seed=3, flow="mef", prior="fpi", weight=1e3)
    first = Run(dataset="digits", seed=3, classifier="swin", augmentation="none")
    assert config.fine_tuned_from(replace(flow, classifier="tuned", augmentation="nfa")) == first
    assert config.fine_tuned_from(replace(first, classifier="tuned", augmentation="standard")) == first
    assert config.fine_tuned_from(replace(first, dataset="other", classifier="tuned")) is None
    assert config.fine_tuned_from(first) is None
    assert config.fine_tuned_from(flow) is None


def test_a_seed_has_a_run_of_the_flow_and_one_of_the_classifier(project):
    experiment = {"dataset": "digits", "lambdas": [7, 0, 7.0], "classifier": "resnet18"}
    config = project.resolve_config(seeds=[1, 2], tables={"t": {"experiments": [experiment]}})
    (made,) = config.tables["t"].experiments
    assert made.weights == [0, 7]
    flow = {"dataset": "digits", "flow": "mef", "prior": "fpi", "weight": 7.0}
    assert config.list_runs(made, 7.0) == [
        (Run(**flow, seed=seed), Run(**flow, seed=seed, classifier="resnet18")) for seed in (1, 2)
    ]


def test_the_weight_of_a_figure_is_lambda_in_files_and_in_the_json_of_stages(project):
    figures = {"samples": {"dataset": "other", "lambda": "1e4"}}
    datasets = {"digits": {}, "other": {"overrides": {"nfa": {"axes": 3}}}}
    config = project.resolve_config(figures=figures, datasets=datasets)
    figure = config.figures["samples"]
    assert figure.weight == 1e4
    dumped = json.loads(json.dumps(figure.model_dump(mode="json")))
    assert dumped["lambda"] == 1e4
    assert type(figure).model_validate(dumped) == figure
    assert config.for_dataset("other").figures["samples"] == figure
    assert "lambda=10000/" in figure.list_model_files(config, Layout(Path("results")))[0]


# ---- what is refused ----------------------------------------------------------------------------------------


def experiment(**changes: Any) -> dict[str, Any]:
    return {"table2": {"experiments": [{"dataset": "digits", "prior": "fpi", "lambdas": [0]} | changes]}}


def with_metrics(*metrics: str) -> dict[str, Any]:
    return {"tables": {"table2": {**experiment()["table2"], "metrics": list(metrics)}}}


def overriding(**blocks: Any) -> dict[str, Any]:
    return {"datasets": {"digits": {"overrides": blocks}}}


def beside_fpi(name: str, **block: Any) -> dict[str, Any]:
    return {"priors": {"fpi": {}, name: block}}


def make_features(**changes: str) -> dict[str, Any]:
    """Return a data set of features with some of its settings changed."""
    features = {"dataset": "digits", "classifier": "real"} | changes
    return {"classifiers": {"real": REAL}, "datasets": {"f": {"source": "features", "features": features}}}


REAL = {"train_on": "real"}
WITHOUT_PRIOR: dict[str, Any] = {"prior": None, "lambdas": [], "classifier": "swin"}
FAULTS = [
    # keys
    ({"trainig": {}}, "'trainig' (did you mean 'training'?)"),
    ({"tables": experiment(lamdas=[0])}, "'tables.table2.experiments.0.lamdas' (did you mean 'lambdas'?)"),
    ({"flows": {"mef": {"zzz": 1}}}, "'flows.mef.zzz' (known: kind, "),
    (beside_fpi("nfgd", method="gradient_descent", update="exact"), "'priors.nfgd.update'"),
    ({"figures": {"figure9": {}}}, "'figures.figure9' (did you mean 'figure2'?)"),
    ({"figures": {"samples": {"dataset": "digits", "lamda": 1}}}, "'figures.samples.lamda' (did you mean 'lambda'?)"),
    ({"classifiers": {"a": {"model": "swin", "architecture": {"depth": 3}}}}, "classifiers.a.architecture.depth'"),
    ({"flows": {"mef": {"training": {"epohcs": 3}}}}, "flows.mef on digits: unknown key 'epohcs'"),
    (overriding(classifier={}), "datasets.digits.overrides.classifier: "),
    (overriding(classifiers={"resnet18": {"epohcs": 3}}), "datasets.digits.overrides: unknown key 'classifiers.resnet"),
    # names
    ({"preset": "smal"}, "preset: unknown preset 'smal' (did you mean 'small'?)"),
    ({"priors": {"fpi": {"method": "magic"}}}, "priors.fpi: unknown prior method 'magic'"),
    ({"datasets": {"digits": {"source": "mnist"}}}, "datasets.digits.source: unknown source 'mnist'"),
    ({"classifiers": {"a": REAL | {"start_from": "b"}}}, "classifiers.a.start_from: unknown classifier 'b'"),
    ({"figures": {"figure1": {"dataset": "digit"}}}, "figures.figure1: unknown dataset 'digit'"),
    ({"tables": experiment(dataset="digit")}, "tables.table2: unknown dataset 'digit'"),
    ({"tables": experiment(classifier="swinn")}, "tables.table2: unknown classifier 'swinn'"),
    (with_metrics("nf_acc", "eec"), "tables.table2.metrics.1: unknown metric 'eec'"),
    (with_metrics("cnn_hours"), "tables.table2.metrics.0: unknown metric 'cnn_hours'"),
    (overriding(classifiers={"resnet": {"epochs": 3}}), "overrides: classifiers: unknown classifier 'resnet'"),
    (overriding(flows={"mff": {"kind": "glow"}}), "overrides: flows: unknown flow 'mff'"),
    (beside_fpi("baseline"), "priors.baseline: "),
    ({"priors": {"fpi+moments": {}}}, "priors.fpi+moments: "),
    ({"priors": {"a b": {"method": "fixed_point"}}}, "priors.a b: "),
    ({"flows": {"mef": {}, "splits": {}}}, "flows.splits: "),
    ({"classifiers": {"resnet18": {}, "swin": {}, "model": {}}}, "classifiers.model: "),
    # values
    ({"training": {"learning_rate": math.inf}}, "training.learning_rate: "),
    ({"training": {"epochs": 10, "fit_after_epochs": 10}}, "training: fit_after_epochs must be smaller than epochs"),
    (overriding(training={"fit_after_epochs": 900}), "datasets.digits.overrides: training: fit_after_epochs "),
    (beside_fpi("nfgd", method="gradient_descent", every="step", objective="released"), "priors.nfgd: objective: "),
    ({"flows": {"mef": {"num_flows": [8]}}}, "flows.mef: num_flows, num_blocks, hidden_channels: "),
    ({"datasets": {"digits": {"image_size": 16}}}, "datasets.digits: image_size: "),
    ({"classifiers": {"resnet18": {}, "a": {"model": "eva02", "pretrained": True}}}, "classifiers.a: start_from and "),
    (
        make_features(dataset="digitz"),
        r"datasets.f.features.dataset: expected a data set of pixels, received 'digitz'",
    ),
    (
        make_features(classifier="resnet18"),
        r"datasets.f.features.classifier: expected a classifier with train_on: real",
    ),
    (make_features(trained_on="f"), "datasets.f.features.trained_on: expected a data set of pixels, received 'f'"),
    ({"datasets": {"f": {"source": "features"}}}, "features: expected them with source features and no other"),
    ({"classifiers": {"a": REAL | {"model": "swin", "pretrained": True}}}, "classifiers.a: pretrained: "),
    ({"classifiers": {"a": REAL | {"start_from": "a"}}}, "classifiers.a.start_from: "),
    ({"classifiers": {"a": REAL | {"start_from": "b"}, "b": {"train_on": "both"}}}, "classifiers.a.start_from: "),
    ({"classifiers": {"a": REAL | {"start_from": "b"}, "b": REAL | {"keep": False}}}, "classifiers.a.start_from: "),
    ({"seeds": [1, 0, 1]}, "seeds: expected each value once"),
    ({"seeds": [1, 2**63]}, "seeds.1: "),
    ({"datasets": {"digits": {"split_seed": 2**32}}}, "datasets.digits.split_seed"),
    # experiments
    ({"tables": {"mine": {}}}, "tables.mine.experiments: "),
    ({"tables": experiment(lambdas=[0, -1])}, "tables.table2.experiments.0.lambdas.1: "),
    ({"tables": experiment(lambdas=[])}, "tables.table2: lambdas: expected at least one for prior 'fpi' on 'digits'"),
    ({"tables": experiment(**WITHOUT_PRIOR, refit="moments")}, "without a prior "),
    ({"tables": experiment(**WITHOUT_PRIOR, augmentation="nfa")}, "without a prior "),
    ({"tables": experiment(prior="nfgd", lambdas=[1], classifier=None, refit="prior")}, "refit: "),
    ({"tables": experiment(classifier="swin", augmentation="none")}, "tables.table2: classifier 'swin' needs "),
    ({"tables": experiment(augmentation="nfa")}, "tables.table2: classifier 'resnet18' needs "),
    (with_metrics("nf_acc", "nf_acc"), "tables.table2.metrics: expected each value once"),
    (with_metrics(), "tables.table2.metrics: "),
    # the environment
    ({"datasets": {"digits": {"folder": "$NFPI_TEST_NOT_SET/x"}}}, "datasets.digits.folder: expected "),
    ({"cluster": {"account": "$NFPI_TEST_NOT_SET@v100"}}, "cluster.account: expected environment variables "),
    ({"datasets": {"digits": {"folder": "$NFPI_TEST_EMPTY/x"}}}, "datasets.digits.folder: expected environment "),
    ({"datasets": {"digits": {"folder": "~nfpi-test-nobody/x"}}}, "datasets.digits.folder: expected a path in a known"),
    ({"preset": "~nfpi-test-nobody/x.yaml"}, "expected a path in a known home folder"),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS)
def test_a_fault_is_one_line_that_names_the_key(project, monkeypatch, changes, message):
    monkeypatch.setenv("NFPI_TEST_EMPTY", "")
    with pytest.raises(ConfigError) as error:
        project.resolve(changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


def test_a_fault_of_a_preset_that_was_not_chosen_does_not_matter(project):
    presets = {"small": {}, "broken": {"training": {"epochs": 0}}}
    assert project.resolve(presets=presets).preset == "small"
    with pytest.raises(ConfigError, match=r"broken.yaml: training\.epochs: "):
        project.resolve({"preset": "broken"}, presets=presets)


def test_a_figure_that_its_prior_does_not_suit_matters_when_it_is_asked_for(project):
    figures = {"residuals": {"dataset": "digits", "lambdas": [1]}}
    config = project.resolve_config({"priors": {"fpi": {"method": "gradient_descent"}}}, figures=figures)
    with pytest.raises(ConfigError, match="'fpi'"):
        config.figures["residuals"].files(config, Layout(Path("results/small")))


def test_null_leaves_tables_and_figures_out(project):
    (name,) = project.resolve_config().tables
    assert project.resolve_config({"tables": {name: None}}).tables == {}
    figures = {"figure1": {"dataset": "digits"}, "samples": {"dataset": "digits"}}
    assert list(project.resolve_config({"figures": {"samples": None}}, figures=figures).figures) == ["figure1"]
    assert project.resolve_config({"figures": {"*": None}}, figures=figures).figures == {}
    settings = {"figures": {"*": None, "figure1": {"dataset": "digits"}}}
    assert list(project.resolve_config(settings, figures=figures).figures) == ["figure1"]
    assert project.resolve_config(figures={"*": None}).figures == {}


# ---- nothing is chosen where nothing is held out --------------------------------------------------------------


def _refit(project, temperatures=(1.0,), best_only=True, **experiment):
    datasets = {"digits": {"refit": True, "overrides": {"generation": {"temperatures": list(temperatures)}}}}
    table = {"best_only": best_only, "experiments": [{"dataset": "digits", **experiment}]}
    return project.resolve_config({"tables": {"table2": table}}, datasets=datasets)


def test_a_refit_is_for_what_is_chosen_already(project):
    assert _refit(project, lambdas=[1e3]).datasets["digits"].refit
    assert _refit(project, temperatures=(0.8, 1.0), lambdas=[1e3], classifier=None).datasets["digits"].refit
    assert _refit(project, best_only=False, lambdas=[0, 1e3]).datasets["digits"].refit


@pytest.mark.parametrize("experiment", [{"lambdas": [0, 1e3]}, {"lambdas": [1e3], "temperatures": (0.8, 1.0)}])
def test_a_choice_where_nothing_is_held_out_is_refused(project, experiment):
    with pytest.raises(ConfigError, match=r"tables\.table2: digits has no validation images"):
        _refit(project, **experiment)


# ---- the choice of λ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best_by", "experiment", "fault"),
    [
        ("hours", {}, "validation_hours"),
        ("nonsense", {}, "nonsense"),
        ("top1", {}, "received top1"),
        ("cnn_acc", {}, "received cnn_acc"),
        ("nf_acc", {"classifier": "swin", "augmentation": "nfa"}, "received nf_acc"),
    ],
)
def test_what_is_not_measured_on_the_validation_split_chooses_nothing(project, best_by, experiment, fault):
    experiments = [{"dataset": "digits", "lambdas": [1, 2], "classifier": None} | experiment]
    table = {"best_by": best_by, "experiments": experiments}
    with pytest.raises(ConfigError, match=rf"tables\.t.*best_by: .*{fault}"):
        project.resolve_config(tables={"t": table})


@pytest.mark.parametrize("best_by", ["nf_acc", "bits_per_dim", "ece", "cnn_acc"])
def test_weights_may_be_chosen_by_what_is_measured_on_the_validation_split(project, best_by):
    experiments = [
        {"dataset": "digits", "lambdas": [1, 2], "classifier": "resnet18"},
        {"dataset": "digits", "lambdas": [0], "classifier": None},  # nothing to choose
    ]
    config = project.resolve_config(tables={"t": {"best_by": best_by, "experiments": experiments}})
    assert config.tables["t"].best_by == best_by


@pytest.mark.parametrize(
    ("preset", "overrides", "where"),
    [
        ({"training": {"epochs": 0}}, {"seeds": [3]}, "small.yaml: training.epochs: "),
        ({"training": {"epohcs": 3}}, {}, "small.yaml: unknown key 'training.epohcs'"),
        ({"training": {"epochs": 0}}, {"training": {"epochs": -1}}, "--config: training.epochs: "),
        ({"training": {"epochs": 0}}, {"training": {"epochs": 1}, "seeds": []}, "--config: seeds: "),
        ({"training": {"epochs": 9, "fit_after_epochs": 5}}, {"training": {"epochs": 5}}, "--config: training: fit_"),
        ({}, {"extensions": 3}, "extensions: "),
    ],
)
def test_a_fault_of_a_setting_names_where_it_is_set(project, preset, overrides, where):
    with pytest.raises(ConfigError) as error:
        project.resolve(overrides, presets={"small": preset})
    assert where in str(error.value)


@pytest.mark.parametrize(
    ("key", "hint"), [("preste", "did you mean 'preset'"), ("lambdas", "each experiment of `tables:` has its own")]
)
def test_an_unknown_key_of_a_call_names_the_nearest_setting(project, key, hint):
    with pytest.raises(ConfigError, match=f"^--config: unknown key '{key}' .*{hint}"):
        project.resolve({key: [1]})
