"""From config.yaml, a preset and what the user passes to settings, or to one line that names the fault."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from nfpi.config.base import ConfigError
from nfpi.config.flows import TrainingConfig
from nfpi.config.priors import PRIORS, FixedPointSettings
from nfpi.config.resolution import resolve
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
    assert project.resolve_config({"seeds": 3}).seeds == [3]


def test_settings_cannot_be_changed_afterwards(project):
    config = project.resolve_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3


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


def test_an_override_may_choose_another_backbone(project):
    overrides = {"flows": {"mef": {"kind": "transformer", "width": 64}}}
    flow = project.resolve_config(datasets={"digits": {"overrides": overrides}}).for_dataset("digits").flows["mef"]
    assert (flow.kind, flow.width) == ("transformer", 64)


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


def test_a_folder_may_name_the_home_and_variables(project, monkeypatch):
    monkeypatch.setenv("NFPI_TEST_SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("NFPI_TEST_PRICE", "/data/5$each")
    datasets = {
        "fourth": {"folder": "$NFPI_TEST_PRICE"},
        "digits": {"folder": "$NFPI_TEST_SCRATCH/digits"},
        "other": {"folder": "~/${NFPI_TEST_SCRATCH}"},
        "third": {"folder": "plain"},
    }
    config = project.resolve_config(datasets=datasets)
    assert config.datasets["digits"].folder == Path("/scratch/me/digits")
    assert config.datasets["other"].folder == Path("/home/me//scratch/me")
    assert config.datasets["third"].folder == Path("plain")
    assert config.datasets["fourth"].folder == Path("/data/5$each")


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
    config = project.resolve_config(
        figures=figures, datasets={"digits": {}, "other": {"overrides": {"nfa": {"axes": 3}}}}
    )
    figure = config.figures["samples"]
    assert figure.weight == 1e4
    dumped = json.loads(json.dumps(figure.model_dump(mode="json")))
    assert dumped["lambda"] == 1e4
    assert type(figure).model_validate(dumped) == figure
    assert config.for_dataset("other").figures["samples"] == figure
    layout = Layout(Path("results"))
    assert (
        figure.list_model_files(config, layout)[0] == "results/other/mef/fpi/lambda=10000/seed=1999/model/config.json"
    )


# ---- what is refused ----------------------------------------------------------------------------------------


def experiment(**changes: Any) -> dict[str, Any]:
    return {"table2": {"experiments": [{"dataset": "digits", "prior": "fpi", "lambdas": [0]} | changes]}}


FAULTS = {
    "unknown group": ({"trainig": {}}, "unknown key 'trainig' (did you mean 'training'?)"),
    "unknown key": ({"training": {"epohcs": 3}}, "unknown key 'training.epohcs' (did you mean 'epochs'?)"),
    "unknown key of a prior": (
        {"priors": {"fpi": {"updates": "exact"}}},
        "unknown key 'priors.fpi.updates' (did you mean 'update'?)",
    ),
    "unknown key of an experiment": (
        {"tables": {"table2": {"experiments": [{"dataset": "digits", "lamdas": [0]}]}}},
        "unknown key 'tables.table2.experiments.0.lamdas' (did you mean 'lambdas'?)",
    ),
    "key unlike any other": (
        {"flows": {"mef": {"zzz": 1}}},
        "unknown key 'flows.mef.zzz' "
        "(known: kind, training, num_flows, num_blocks, hidden_channels, coupling, initialization)",
    ),
    "unknown stage": (
        {"resources": {"start_flw": {}}},
        "unknown key 'resources.start_flw' (did you mean 'start_flow'?)",
    ),
    "unknown key of a learned prior": (
        {"priors": {"fpi": {}, "nfgd": {"method": "gradient_descent", "update": "exact"}}},
        "unknown key 'priors.nfgd.update'",
    ),
    "unknown method of a prior": (
        {"priors": {"fpi": {"method": "magic"}}},
        f"priors.fpi: unknown prior method 'magic' (known: {', '.join(PRIORS)})",
    ),
    "value of a learned prior": (
        {"priors": {"fpi": {}, "nfgd": {"method": "gradient_descent", "power": 0}}},
        "priors.nfgd.power: Input should be greater than 0, received 0",
    ),
    "table without experiments": ({"tables": {"mine": {}}}, "tables.mine.experiments: Field required"),
    "prior that is no mapping": ({"priors": {"fpi": 3}}, "priors.fpi: Input should be a valid dictionary"),
    "unknown classifier": (
        {"tables": experiment(classifier="swinn")},
        "tables.table2: unknown classifier 'swinn' (did you mean 'swin'?)",
    ),
    "a refit without a flow": (
        {"tables": experiment(prior=None, lambdas=[], classifier="swin", refit="moments")},
        "without a prior an experiment has a classifier, no lambdas, refit, nfa or noise",
    ),
    "a refit by the method of Gaussians that are learned": (
        {"tables": experiment(prior="nfgd", lambdas=[1], classifier=None, refit="prior")},
        "refit: expected moments for prior 'nfgd'",
    ),
    "a prior named as one that is refitted": ({"priors": {"fpi+moments": {}}}, "priors.fpi+moments: "),
    "latent augmentation without a flow": (
        {"tables": experiment(prior=None, lambdas=[], classifier="swin", augmentation="nfa")},
        "without a prior an experiment has a classifier, no lambdas, refit, nfa or noise",
    ),
    "real images, but a prior": (
        {"tables": experiment(classifier="swin", augmentation="none")},
        "tables.table2: classifier 'swin' needs a prior if its augmentation has nfa or noise, and none otherwise",
    ),
    "generated images, augmented": (
        {"tables": experiment(augmentation="nfa")},
        "tables.table2: classifier 'resnet18' needs a prior and augmentation: standard",
    ),
    "classifier that starts from an unknown one": (
        {"classifiers": {"a": {"train_on": "real", "start_from": "b"}}},
        "classifiers.a.start_from: unknown classifier 'b'",
    ),
    "weights for a classifier trained on generated images": (
        {"classifiers": {"resnet18": {}, "eva02": {"model": "eva02", "pretrained": True}}},
        "classifiers.eva02: start_from and pretrained need train_on: real",
    ),
    "published weights of a model that has none": (
        {"classifiers": {"resnet18": {}, "swin": {"model": "swin", "train_on": "real", "pretrained": True}}},
        "classifiers.swin: pretrained: expected a model whose weights are published (eva02), received model 'swin'",
    ),
    "classifier that starts from itself": (
        {"classifiers": {"a": {"train_on": "real", "start_from": "a"}}},
        "classifiers.a.start_from: ",
    ),
    "start from a classifier trained on generated images": (
        {"classifiers": {"a": {"train_on": "real", "start_from": "b"}, "b": {"train_on": "both"}}},
        "classifiers.a.start_from: ",
    ),
    "start from weights that go": (
        {"classifiers": {"a": {"train_on": "real", "start_from": "swin"}, "swin": {"keep": False}}},
        "classifiers.a.start_from: ",
    ),
    "policy that is none": (
        {"classifiers": {"a": {"standard": {"rand_augment": "m9"}}}},
        "classifiers.a.standard.rand_augment: String should match pattern",
    ),
    "released objective, every step": (
        {"priors": {"fpi": {}, "nfgd": {"method": "gradient_descent", "every": "step", "objective": "released"}}},
        "priors.nfgd: objective: released needs all training latents",
    ),
    "unknown data set of a figure": (
        {"figures": {"figure1": {"dataset": "digit"}}},
        "figures.figure1: unknown dataset 'digit' (did you mean 'digits'?)",
    ),
    "weight of a figure by another name": (
        {"figures": {"samples": {"dataset": "digits", "lamda": 1}}},
        "unknown key 'figures.samples.lamda' (did you mean 'lambda'?)",
    ),
    "weight of a figure by its name in Python": (
        {"figures": {"samples": {"dataset": "digits", "weight": 1}}},
        "unknown key 'figures.samples.weight'",
    ),
    "unknown figure": ({"figures": {"figure9": {}}}, "unknown key 'figures.figure9' (did you mean 'figure2'?)"),
    "wrong type": ({"training": {"epochs": "many"}}, "training.epochs: Input should be a valid integer"),
    "fraction of an epoch": ({"training": {"epochs": 4.5}}, "training.epochs: Input should be a valid integer"),
    "no mapping": ({"training": 3}, "training: Input should be a valid dictionary"),
    "word that is none of the choices": (
        {"priors": {"fpi": {"update": "exakt"}}},
        "priors.fpi.update: Input should be 'released' or 'exact', received 'exakt'",
    ),
    "negative weight": (
        {"tables": experiment(lambdas=[0, -1])},
        "tables.table2.experiments.0.lambdas.1: Input should be greater than or equal to 0, received -1",
    ),
    "infinite weight": (
        {"tables": experiment(lambdas=[math.inf])},
        "tables.table2.experiments.0.lambdas.0: Input should be a finite number",
    ),
    "weight that is no number": (
        {"tables": experiment(lambdas=["large"])},
        "tables.table2.experiments.0.lambdas.0: Input should be a valid number",
    ),
    "no weight": (
        {"tables": experiment(lambdas=[])},
        "tables.table2: lambdas: expected at least one for prior 'fpi' on 'digits', received none",
    ),
    "unknown data set": (
        {"tables": experiment(dataset="digit")},
        "tables.table2: unknown dataset 'digit' (did you mean 'digits'?)",
    ),
    "unknown prior": (
        {"tables": experiment(prior="mean")},
        "tables.table2: unknown prior 'mean' (did you mean 'mean_only'?)",
    ),
    "prior with the name of the baseline": (
        {"priors": {"fpi": {}, "baseline": {}}},
        "priors.baseline: this name is reserved: choose another one",
    ),
    "unknown preset": ({"preset": "smal"}, "preset: unknown preset 'smal' (did you mean 'small'?)"),
    "fit after the end": (
        {"training": {"epochs": 10, "fit_after_epochs": 10}},
        "training: fit_after_epochs must be smaller than epochs, received 10 and 10",
    ),
    "levels that do not match": (
        {"flows": {"mef": {"num_flows": [8]}}},
        "flows.mef: num_flows, num_blocks, hidden_channels: expected one entry per level, received 1, 3, 3",
    ),
    "variable that is not set": (
        {"datasets": {"digits": {"folder": "$NFPI_TEST_NOT_SET/x"}}},
        "datasets.digits.folder: environment variable $NFPI_TEST_NOT_SET is not set",
    ),
    "variable in braces that is not set": (
        {"datasets": {"digits": {"folder": "/a/${NFPI_TEST_NOT_SET}"}}},
        "datasets.digits.folder: environment variable ${NFPI_TEST_NOT_SET} is not set",
    ),
    "variable with a default, as in a shell": (
        {"datasets": {"digits": {"folder": "${HOME-}/x"}}},
        "datasets.digits.folder: environment variable ${HOME-} is not set",
    ),
    "home of an unknown user": (
        {"datasets": {"digits": {"folder": "~nfpi-test-nobody/x"}}},
        "datasets.digits.folder: expected a path in a known home folder, received ~nfpi-test-nobody/x",
    ),
    "name with a space": (
        {"priors": {"a b": {"method": "fixed_point"}}},
        "priors.a b: ",
    ),
    "variable that is empty": (
        {"cluster": {"account": "$NFPI_TEST_EMPTY@v100"}},
        "cluster.account: environment variable $NFPI_TEST_EMPTY is empty",
    ),
    "unknown source": (
        {"datasets": {"digits": {"source": "mnist"}}},
        "datasets.digits.source: unknown source 'mnist' (did you mean 'fashion_mnist'?)",
    ),
    "unknown kind of flow": (
        {"flows": {"mef": {"kind": "glwo"}}},
        "flows.mef: unknown kind of flow 'glwo' (did you mean 'glow'?)",
    ),
    "flow that is no name": (
        {"tables": experiment(flow="gloww")},
        "tables.table2: unknown flow 'gloww' (did you mean 'glow'?)",
    ),
    "flow of a figure": (
        {"figures": {"samples": {"dataset": "digits", "flow": "gloww"}}},
        "figures.samples: unknown flow 'gloww' (did you mean 'glow'?)",
    ),
    "setting of another kind of flow": (
        {"flows": {"mef": {}, "glow": {"kind": "glow", "num_blocks": [1]}}},
        "unknown key 'flows.glow.num_blocks'",
    ),
    "heads that do not divide the width": (
        {"flows": {"mef": {}, "t": {"kind": "transformer", "width": 10, "num_heads": 4}}},
        "flows.t: num_heads: expected a divisor of width 10, received 4",
    ),
    "name of a flow that is a folder's": ({"flows": {"mef": {}, "splits": {}}}, "flows.splits: this name is reserved"),
    "name of a classifier that is a folder's": (
        {"classifiers": {"resnet18": {}, "swin": {}, "model": {}}},
        "classifiers.model: this name is reserved",
    ),
    "unknown model of a classifier": (
        {"classifiers": {"a": {"model": "resnet"}}},
        "classifiers.a.model: unknown classifier model 'resnet' (did you mean 'resnet18'?)",
    ),
    "setting of another classifier model": (
        {"classifiers": {"a": {"model": "swin", "architecture": {"depth": 3}}}},
        "unknown key 'classifiers.a.architecture.depth' (did you mean 'depths'?)",
    ),
    "unknown metric": (
        {"tables": {"table2": {**experiment()["table2"], "metrics": ["nf_acc", "eec"]}}},
        "tables.table2.metrics.1: unknown metric 'eec' (did you mean 'ece'?)",
    ),
    "metric that is recorded, of a classifier": (
        {"tables": {"table2": {**experiment()["table2"], "metrics": ["cnn_hours"]}}},
        "tables.table2.metrics.0: unknown metric 'cnn_hours'",
    ),
    "metric twice": (
        {"tables": {"table2": {**experiment()["table2"], "metrics": ["nf_acc", "nf_acc"]}}},
        "tables.table2.metrics: expected each value once, received nf_acc 2 times",
    ),
    "no metric": (
        {"tables": {"table2": {**experiment()["table2"], "metrics": []}}},
        "tables.table2.metrics: List should",
    ),
    "training of a backbone": (
        {"flows": {"mef": {"training": {"epohcs": 3}}}},
        "training of flows.mef on digits: unknown key 'epohcs' (did you mean 'epochs'?)",
    ),
    "weight in the settings of a prior": ({"priors": {"fpi": {"weight": 3}}}, "unknown key 'priors.fpi.weight'"),
    "number as a name": (
        {"datasets": {2024: {}}},
        "datasets.2024: Input should be a valid string, received 2024",
    ),
    "seed twice": ({"seeds": [1, 0, 1]}, "seeds: expected each value once, received 1 2 times"),
    "size of images of a fixed size": (
        {"datasets": {"digits": {"image_size": 16}}},
        "datasets.digits: image_size: expected null for source digits, whose images have 8×8 pixels, received 16",
    ),
    "unknown classifier in an override": (
        {"datasets": {"digits": {"overrides": {"classifiers": {"resnet": {"epochs": 3}}}}}},
        ": datasets.digits.overrides: classifiers: unknown classifier 'resnet' (did you mean 'resnet18'?)",
    ),
    "unknown backbone in an override": (
        {"datasets": {"digits": {"overrides": {"flows": {"mff": {"kind": "glow"}}}}}},
        ": datasets.digits.overrides: flows: unknown flow 'mff' (did you mean 'mef'?)",
    ),
    "name that is no name": ({"datasets": {"a/b": {}}}, "datasets.a/b: "),
    "override of a stage that has none": (
        {"datasets": {"digits": {"overrides": {"classifier": {}}}}},
        "unknown key 'datasets.digits.overrides.classifier' (did you mean 'classifiers'?)",
    ),
    "line break in results": ({"results": "a\nb"}, "results: expected a path without line breaks"),
    "hyphen before results": (
        {"results": "./-n"},
        "results: expected a path without line breaks and a hyphen in front",
    ),
    "unknown key in an override": (
        {"datasets": {"digits": {"overrides": {"classifiers": {"resnet18": {"epohcs": 3}}}}}},
        ": datasets.digits.overrides: unknown key 'classifiers.resnet18.epohcs' (did you mean 'epochs'?)",
    ),
    "override out of range": (
        {"datasets": {"digits": {}, "other": {"overrides": {"training": {"fit_after_epochs": 900}}}}},
        ": datasets.other.overrides: training: fit_after_epochs must be smaller than epochs",
    ),
}


@pytest.mark.parametrize(("changes", "message"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("by_the_user", [False, True])
def test_a_fault_is_one_line_that_names_the_key(project, monkeypatch, changes, message, by_the_user):
    monkeypatch.setenv("NFPI_TEST_EMPTY", "")
    arguments = {"overrides": changes} if by_the_user else {"presets": {"small": {}}, **changes}
    with pytest.raises(ConfigError) as error:
        project.resolve(**arguments)
    assert message in str(error.value)
    if not changes.keys() & {"preset", "results"}:  # these are not settings of a preset
        # a fault of config.yaml that shows only together with the preset is said to be the preset's
        places = ("--config: ",) if by_the_user else (f"{project.folder}/config.yaml: ", "preset small: ")
        assert str(error.value).startswith(places)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("preset", "overrides", "where"),
    [
        ({"training": {"epochs": 0}}, {"seeds": [3]}, "preset small: training.epochs: "),
        ({"training": {"epochs": 0}}, {"training": {"epochs": -1}}, "--config: training.epochs: "),
        ({"training": {"epochs": 0}}, {"seeds": []}, "--config: seeds: "),  # both have a fault
        ({"training": {"epochs": 0}}, {"training": {"epochs": 1}, "seeds": []}, "--config: seeds: "),
        ({"training": {"epochs": 9, "fit_after_epochs": 5}}, {"training": {"epochs": 5}}, "--config: training: fit_"),
        ({"flows": {"x": {"kind": "zzz"}}}, {"flows": {"new": {}}}, "preset small: flows.x: unknown "),
        ({"extensions": 3}, {"seeds": [3]}, "preset small: extensions: "),
        ({}, {"extensions": 3}, "--config: extensions: "),
        ({}, {"datasets": {"digits": {"overrides": {"training": {"epochs": 0}}}}}, "--config: datasets.digits.over"),
    ],
)
def test_a_fault_is_of_the_preset_if_it_is_there_without_the_users_settings(project, preset, overrides, where):
    with pytest.raises(ConfigError, match=f"^{re.escape(where)}"):
        project.resolve(overrides, presets={"small": preset})


def test_a_fault_of_an_extended_preset_names_this_preset(project):
    presets = {"small": {"training": {"epochs": 0}}}
    mine = project.write("mine.yaml", {"extends": "small", "training": {"batch_size": 3}})
    with pytest.raises(ConfigError, match=r"^preset small: training\.epochs: "):
        project.resolve({"preset": str(mine), "training": {"workers": 1}}, presets=presets)


@pytest.mark.parametrize("overrides", [{}, {"seeds": [3]}])
def test_a_fault_of_config_yaml_names_this_file(project, overrides):
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(str(project.folder))}/config\.yaml: unknown key 'training\.epohcs'"
    ):
        project.resolve(overrides, training={"epohcs": 3})


def test_the_options_that_gave_a_fault_are_named(project):
    arguments = {"overrides": {"seeds": []}, "overrides_name": "--configfile mine.yaml"}
    config = project.write("config.yaml", {"preset": "small"})
    project.write("presets/small.yaml", {})
    with pytest.raises(ConfigError, match=r"^--configfile mine\.yaml: seeds: "):
        resolve(config, project.folder / "presets", **arguments)


def test_a_fault_of_a_preset_that_was_not_chosen_does_not_matter(project):
    presets = {"small": {}, "broken": {"training": {"epochs": 0}}}
    assert project.resolve(presets=presets).preset == "small"
    with pytest.raises(ConfigError, match=r"preset broken: training\.epochs"):
        project.resolve({"preset": "broken"}, presets=presets)


def test_a_figure_that_its_prior_does_not_suit_matters_when_it_is_asked_for(project):
    figures = {"residuals": {"dataset": "digits", "lambdas": [1]}}
    config = project.resolve_config({"priors": {"fpi": {"method": "gradient_descent"}}}, figures=figures)
    with pytest.raises(ConfigError, match="'fpi'"):
        config.figures["residuals"].files(config, Layout(Path("results/small")))


def test_null_leaves_a_figure_out(project):
    figures = {"figure1": {"dataset": "digits"}, "samples": {"dataset": "digits"}}
    assert list(project.resolve_config({"figures": {"samples": None}}, figures=figures).figures) == ["figure1"]


def test_all_inherited_figures_can_be_left_out_at_once(project):
    figures = {"figure1": {"dataset": "digits"}, "samples": {"dataset": "digits"}}
    assert project.resolve_config({"figures": {"*": None}}, figures=figures).figures == {}
    settings = {"figures": {"*": None, "figure1": {"dataset": "digits"}}}
    assert list(project.resolve_config(settings, figures=figures).figures) == ["figure1"]
    assert project.resolve_config(figures={"*": None}).figures == {}


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (FixedPointSettings, {"alpha": 0}),
        (FixedPointSettings, {"alpha": math.nan}),
        (FixedPointSettings, {"tolerance": -1}),
        (FixedPointSettings, {"max_iterations": 0}),
        (TrainingConfig, {"learning_rate": 0}),
        (TrainingConfig, {"learning_rate": math.inf}),
        (TrainingConfig, {"gradient_clip": -1}),
        (TrainingConfig, {"ema_decay": 1}),
        (TrainingConfig, {"workers": -1}),
        (TrainingConfig, {"batch_size": 0}),
    ],
)
def test_numbers_out_of_range_are_refused(model, values):
    with pytest.raises(ValidationError) as error:
        model(**values)
    assert [fault["loc"] for fault in error.value.errors()] == [tuple(values)]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"seeds": [1, 2**63]}, "seeds.1"),
        ({"datasets": {"digits": {"split_seed": 2**32}}}, "datasets.digits.split_seed"),
    ],
)
def test_a_seed_that_tables_cannot_hold_is_refused(project, changes, key):
    with pytest.raises(ConfigError, match=rf"^--config: {key}: .*, received \d+$"):
        project.resolve_config(changes)
    assert project.resolve_config({"seeds": [2**63 - 1]}).seeds == [2**63 - 1]


# ---- nothing is chosen where nothing is held out --------------------------------------------------------------


def _refit(project, temperatures=(1.0,), best_only=True, **experiment):
    datasets = {"digits": {"refit": True, "overrides": {"generation": {"temperatures": list(temperatures)}}}}
    table = {"best_only": best_only, "experiments": [{"dataset": "digits", **experiment}]}
    return project.resolve_config({"tables": {"table2": table}}, datasets=datasets)


def test_a_refit_is_for_what_is_chosen_already(project):
    assert _refit(project, lambdas=[1e3]).datasets["digits"].refit
    assert _refit(project, temperatures=(0.8, 1.0), lambdas=[1e3], classifier=None).datasets["digits"].refit
    assert _refit(project, best_only=False, lambdas=[0, 1e3]).datasets["digits"].refit


def test_a_choice_where_nothing_is_held_out_is_refused_in_one_line(project):
    held = r": tables\.table2: digits has no validation images \(refit\) to select on: expected"
    with pytest.raises(ConfigError, match=f"^--config{held} one λ per experiment with best_only, received 2"):
        _refit(project, lambdas=[0, 1e3])
    with pytest.raises(ConfigError, match=rf"^--config{held} a single value of generation\.temperatures for"):
        _refit(project, temperatures=(0.8, 1.0), lambdas=[1e3])


# ---- the choice of λ -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("best_by", "experiment", "fault"),
    [
        ("hours", {}, "tables.t.best_by: unknown metric 'validation_hours'"),
        ("cnn_ece", {}, "tables.t.best_by: unknown metric 'validation_cnn_ece'"),
        ("nonsense", {}, "nonsense"),
        ("top1", {}, "tables.t: best_by: .*received top1"),
        ("cnn_acc", {}, "tables.t: best_by: .*received cnn_acc"),
        (
            *("nf_acc", {"classifier": "swin", "augmentation": "nfa"}),
            "tables.t: best_by: .*top1.*, received nf_acc",
        ),
    ],
)
def test_what_is_not_measured_on_the_validation_split_chooses_nothing(project, best_by, experiment, fault):
    classifiers = {"resnet18": {}, "swin": {"model": "swin", "train_on": "real"}}
    experiments = [{"dataset": "digits", "lambdas": [1, 2], "classifier": None} | experiment]
    table = {"best_by": best_by, "experiments": experiments}
    with pytest.raises(ConfigError, match=fault):
        project.resolve_config(tables={"t": table}, classifiers=classifiers)


@pytest.mark.parametrize("best_by", ["nf_acc", "bits_per_dim", "ece", "cnn_acc"])
def test_weights_may_be_chosen_by_what_is_measured_on_the_validation_split(project, best_by):
    experiments = [
        {"dataset": "digits", "lambdas": [1, 2], "classifier": "resnet18"},
        {"dataset": "digits", "lambdas": [0], "classifier": None},  # nothing to choose
    ]
    datasets = {"digits": {"overrides": {"training": {"epochs": 3}}}}
    config = project.resolve_config(tables={"t": {"best_by": best_by, "experiments": experiments}}, datasets=datasets)
    assert config.tables["t"].best_by == best_by


def test_a_table_is_left_out_by_null(project):
    (name,) = project.resolve_config().tables
    assert project.resolve_config({"tables": {name: None}}).tables == {}
