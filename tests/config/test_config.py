from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nfpi.config import ConfigError, FixedPointPrior, TrainingConfig, format_weight, json_schema, leaf_prior, merge, resolve

BASE: dict[str, Any] = {
    "preset": "small",
    "results": "out",
    "datasets": {"digits": {"source": "digits", "flip": False}, "other": {}},
    "training": {"epochs": 100, "batch_size": 64},
    "classifiers": {"resnet18": {}, "swin": {"model": "swin", "train_on": "real"}},
    "priors": {
        "fpi": {},
        "nfgd": {"method": "gradient_descent"},
        "mean_only": {"start": "identity", "fit_variance": False},
    },
    "presets": {
        "small": {
            "training": {"epochs": 10},
            "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [0, "1e3"]}]}},
        },
        "large": {"seeds": [1, 2]},
    },
}


def base(**changes: Any) -> dict[str, Any]:
    """BASE with whole groups replaced."""
    return copy.deepcopy(BASE) | changes


# ---- what is laid over what ---------------------------------------------------------------------------------


def test_the_user_wins_over_the_preset_and_the_preset_over_the_rest():
    name, results, config = resolve(BASE)
    assert (name, results) == ("small", Path("out"))
    assert (config.training.epochs, config.training.batch_size) == (10, 64)
    assert config.training.learning_rate == 1e-2
    assert config.seeds == [1999]
    _, _, config = resolve(BASE, {"training": {"epochs": 3, "learning_rate": 0.5}})
    assert (config.training.epochs, config.training.batch_size, config.training.learning_rate) == (3, 64, 0.5)


def test_the_user_chooses_the_preset_and_the_folder():
    name, results, config = resolve(BASE, {"preset": "large", "results": "elsewhere"})
    assert (name, results) == ("large", Path("elsewhere"))
    assert config.seeds == [1, 2]
    assert config.training.epochs == 100
    assert config.tables == {}


def test_the_user_may_change_a_preset_and_add_one():
    overrides = {"preset": "mine", "presets": {"mine": {"seeds": [5]}, "small": {"seeds": [6]}}}
    assert resolve(BASE, overrides)[2].seeds == [5]
    assert resolve(BASE, overrides | {"preset": "small"})[2].seeds == [6]


def test_lists_are_replaced_and_mappings_merged():
    overlay = {"a": {"b": [3], "new": {"x": 1}}, "d": {"e": 1}}
    below = {"a": {"b": [1, 2], "c": 0}, "d": 7}
    assert merge(below, overlay) == {"a": {"b": [3], "c": 0, "new": {"x": 1}}, "d": {"e": 1}}
    assert merge(below, {"a": {"c": 1}}, {"a": {"c": 2}})["a"]["c"] == 2


def test_merging_leaves_its_arguments_alone_and_shares_nothing():
    below, overlay = {"a": {"b": [1]}}, {"c": {"d": [2]}}
    merged = merge(below, overlay)
    merged["a"]["b"].append(9)
    merged["c"]["d"].append(9)
    assert (below, overlay) == ({"a": {"b": [1]}}, {"c": {"d": [2]}})


KEYS = st.sampled_from("abc")
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
MAPPINGS = st.dictionaries(KEYS, TREES, max_size=3)


@given(MAPPINGS, MAPPINGS)
def test_an_overlay_is_in_what_it_was_laid_over(below, overlay):
    merged = merge(below, overlay)
    assert merge(merged, overlay) == merged
    assert merge(below, {}) == below
    assert merge({}, overlay) == overlay
    assert merged.keys() == below.keys() | overlay.keys()


def test_settings_cannot_be_changed_afterwards():
    _, _, config = resolve(BASE)
    with pytest.raises(ValidationError, match="frozen"):
        config.training.epochs = 3


# ---- a data set's own settings ------------------------------------------------------------------------------


def test_null_may_be_written_as_snakemakes_config_reads_it():
    overrides = {"tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": ["0"], "classifier": "null"}]}}}
    (experiment,) = resolve(BASE, overrides)[2].tables["table2"].experiments
    assert experiment.classifier is None


def test_overrides_hold_for_their_data_set_only():
    datasets = {
        "other": {"overrides": {"classifiers": {"resnet18": {"epochs": 50}}, "flow": {"coupling": "affine"}}},
        "digits": {},
    }
    _, _, config = resolve(base(datasets=datasets, classifiers={"resnet18": {"batch_size": 7}}))
    other = config.for_dataset("other")
    resnet18 = other.classifiers["resnet18"]
    assert (resnet18.epochs, resnet18.batch_size, other.flow.coupling) == (50, 7, "affine")
    assert other.training == config.training
    assert config.for_dataset("digits") == config
    assert config.classifiers["resnet18"].epochs == 30


def test_a_folder_may_name_the_home_and_variables(monkeypatch):
    monkeypatch.setenv("NFPI_TEST_SCRATCH", "/scratch/me")
    monkeypatch.setenv("HOME", "/home/me")
    datasets = {
        "digits": {"folder": "$NFPI_TEST_SCRATCH/digits"},
        "other": {"folder": "~/${NFPI_TEST_SCRATCH}"},
        "third": {"folder": "plain"},
    }
    _, _, config = resolve(base(datasets=datasets))
    assert config.datasets["digits"].folder == Path("/scratch/me/digits")
    assert config.datasets["other"].folder == Path("/home/me//scratch/me")
    assert config.datasets["third"].folder == Path("plain")


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
        {"flow": {"zzz": 1}},
        "unknown key 'flow.zzz' (known: num_flows, num_blocks, hidden_channels, coupling)",
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
        "priors.fpi.method: expected 'fixed_point', 'gradient_descent', received 'magic'",
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
    "latent augmentation without a flow": (
        {"tables": experiment(prior=None, lambdas=[], classifier="swin", augmentation="nfa")},
        "without a prior an experiment has a classifier, no lambdas, and no nfa",
    ),
    "real images, but a prior": (
        {"tables": experiment(classifier="swin", augmentation="none")},
        "tables.table2: classifier 'swin' needs a prior and lambdas exactly where its augmentation has nfa",
    ),
    "generated images, augmented": (
        {"tables": experiment(augmentation="nfa")},
        "tables.table2: classifier 'resnet18' needs a prior, and its augmentation is standard",
    ),
    "classifier that starts from an unknown one": (
        {"classifiers": {"a": {"train_on": "real", "start_from": "b"}}},
        "classifiers.a.start_from: unknown classifier 'b'",
    ),
    "weights for a classifier of generated images": (
        {"classifiers": {"resnet18": {"pretrained": True}}},
        "classifiers.resnet18: start_from and pretrained are for classifiers of real images",
    ),
    "classifier that starts from itself": (
        {"classifiers": {"a": {"train_on": "real", "start_from": "a"}}},
        "classifiers.a.start_from: expected one that starts from no other, received 'a'",
    ),
    "policy that is none": (
        {"classifiers": {"a": {"standard": {"rand_augment": "m9"}}}},
        "classifiers.a.standard.rand_augment: String should match pattern",
    ),
    "released objective, every step": (
        {"priors": {"fpi": {}, "nfgd": {"method": "gradient_descent", "every": "step", "objective": "released"}}},
        "priors.nfgd: objective: released is of all training latents",
    ),
    "unknown data set of a figure": (
        {"figures": {"figure1": {"dataset": "digit"}}},
        "figures.figure1: unknown dataset 'digit' (did you mean 'digits'?)",
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
    "no weight": ({"tables": experiment(lambdas=[])}, "tables.table2.experiments.0: lambdas: expected at least one"),
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
        "priors.baseline: this name is kept",
    ),
    "unknown preset": ({"preset": "smal"}, "preset: unknown preset 'smal' (did you mean 'small'?)"),
    "fit after the end": (
        {"training": {"epochs": 10, "fit_after_epochs": 10}},
        "training: fit_after_epochs must be smaller than epochs, received 10 and 10",
    ),
    "levels that do not match": (
        {"flow": {"num_flows": [8]}},
        "flow: num_flows, num_blocks and hidden_channels need one entry a level each, received 1, 3 and 3 entries",
    ),
    "variable that is not set": (
        {"datasets": {"digits": {"folder": "$NFPI_TEST_NOT_SET/x"}}},
        "datasets.digits.folder: environment variable $NFPI_TEST_NOT_SET is not set",
    ),
    "variable in braces that is not set": (
        {"datasets": {"digits": {"folder": "/a/${NFPI_TEST_NOT_SET}"}}},
        "datasets.digits.folder: environment variable ${NFPI_TEST_NOT_SET} is not set",
    ),
    "unknown source": ({"datasets": {"digits": {"source": "mnist"}}}, "datasets.digits.source: Input should be"),
    "name that is no name": ({"datasets": {"a/b": {}}}, "'datasets.a/b'"),
    "override of a stage that has none": (
        {"datasets": {"digits": {"overrides": {"classifier": {}}}}},
        "unknown key 'datasets.digits.overrides.classifier' (did you mean 'classifiers'?)",
    ),
    "unknown key in an override": (
        {"datasets": {"digits": {"overrides": {"classifiers": {"resnet18": {"epohcs": 3}}}}}},
        "preset small: datasets.digits.overrides: unknown key 'classifiers.resnet18.epohcs' (did you mean 'epochs'?)",
    ),
    "override out of range": (
        {"datasets": {"digits": {}, "other": {"overrides": {"training": {"fit_after_epochs": 900}}}}},
        "preset small: datasets.other.overrides: training: fit_after_epochs must be smaller than epochs",
    ),
    "unknown key in a preset": (
        {"presets": {"small": {"flow": {"num_flow": [1]}}}},
        "preset small: unknown key 'flow.num_flow' (did you mean 'num_flows'?)",
    ),
    "folder of results in a preset": ({"presets": {"small": {"results": "x"}}}, "preset small: unknown key 'results'"),
    "preset that is nothing": ({"presets": {"small": None}}, "presets.small: Input should be a valid dictionary"),
}


@pytest.mark.parametrize(("changes", "message"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("by_the_user", [False, True])
def test_a_fault_is_one_line_that_names_the_key(changes, message, by_the_user):
    below, overrides = (BASE, changes) if by_the_user else (BASE | changes, {})
    if not by_the_user and "presets" not in changes:
        below = below | {"presets": {"small": {}}}
    with pytest.raises(ConfigError) as error:
        resolve(below, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


def test_a_fault_of_a_preset_that_was_not_chosen_does_not_matter():
    presets = {"small": {}, "broken": {"training": {"epochs": 0}}}
    assert resolve(base(presets=presets))[0] == "small"
    with pytest.raises(ConfigError, match=r"preset broken: training\.epochs"):
        resolve(base(presets=presets), {"preset": "broken"})


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (FixedPointPrior, {"alpha": 0}),
        (FixedPointPrior, {"alpha": math.nan}),
        (FixedPointPrior, {"tolerance": 0}),
        (FixedPointPrior, {"max_iterations": 0}),
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


def test_zero_of_a_fixed_point_is_shared_and_that_of_a_learned_prior_its_own():
    _, _, config = resolve(BASE)
    places = {name: leaf_prior(name, prior, 0) for name, prior in config.priors.items()}
    assert places == {"fpi": "baseline", "mean_only": "baseline-identity", "nfgd": "nfgd"}
    assert leaf_prior("fpi", config.priors["fpi"], 1.0) == "fpi"


# ---- λ in paths ---------------------------------------------------------------------------------------------

WEIGHTS = st.floats(min_value=0, allow_infinity=False)


@given(WEIGHTS)
def test_a_weight_is_read_back_from_its_text(weight):
    assert float(format_weight(weight)) == weight
    assert format_weight(format_weight(weight)) == format_weight(weight)


@given(WEIGHTS, st.sampled_from(["{!r}", "{:.17g}", "{:.17e}", "+{!r}", " {!r} ", "00{:.17f}"]))
def test_equal_weights_have_one_text(weight, form):
    text = form.format(weight)
    if float(text) == weight:
        assert format_weight(text) == format_weight(weight)


@given(WEIGHTS, WEIGHTS)
def test_different_weights_have_different_texts(one, other):
    assert (format_weight(one) == format_weight(other)) == (one == other)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1e4", "10000", "1.0e4", "10000.0", 10000, 1e4], "10000"),
        (["0", "0.0", -0.0, 0], "0"),
        (["0.5", ".5", "5e-1"], "0.5"),
        ([1e15, "1000000000000000"], "1000000000000000.0"),
        ([1e22], "1e+22"),
    ],
)
def test_texts_of_weights(texts, expected):
    assert {format_weight(text) for text in texts} == {expected}


# ---- the schema ---------------------------------------------------------------------------------------------


def test_the_schema_knows_every_key_and_no_other():
    schema = json_schema()
    assert set(schema["properties"]) >= {"preset", "results", "presets", "training", "tables"}
    assert schema["additionalProperties"] is False
    (preset,) = schema["properties"]["presets"]["patternProperties"].values()
    assert set(preset["properties"]) == set(schema["properties"]) - {"preset", "results", "presets"}
    json.dumps(schema)
