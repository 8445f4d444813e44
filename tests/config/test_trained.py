"""Experiments on trained models: no prior, no λ, no training."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nfpi.config.base import ConfigError
from nfpi.config.settings import Config
from nfpi.runs import Run

COMMIT = "0123456789abcdef0123456789abcdef01234567"
EXPERIMENT = {"dataset": "digits", "flow": "theirs", "classifier": None}


def make_overrides(model: object = "nothing", *experiments: dict[str, Any], **flow: Any) -> dict[str, Any]:
    return {
        "flows": {"theirs": {"kind": "trained", "model": str(model), **flow}},
        "tables": {"table2": {"experiments": [*(experiments or (EXPERIMENT,))]}},
    }


def find_run(config: Config) -> Run:
    experiment = config.tables["table2"].experiments[0]
    ((run, _),) = config.list_runs(experiment, experiment.weights[0])
    return run


@pytest.mark.parametrize(("flow", "expected"), [({}, 0), ({"lambda": "1e3"}, 1000)])
def test_the_prior_is_the_models_own_with_its_weight(project, flow, expected):
    config = project.resolve_config(make_overrides(**flow))
    run = find_run(config)
    assert run.folder == f"digits/theirs/own/lambda={expected}/seed=1999"
    assert run.is_imported
    again = Config.model_validate(json.loads(config.model_dump_json()))
    assert find_run(again) == run
    assert find_run(config.for_dataset("digits")) == run


def test_a_path_is_relative_to_the_preset_and_an_id_is_none(project):
    for flow, expected in (({}, str(project.folder / "mine/owner/name")), ({"revision": COMMIT}, "owner/name")):
        preset = project.write("mine/mine.yaml", make_overrides("owner/name", **flow))
        assert project.resolve_config({"preset": str(preset)}).flows["theirs"].model == expected


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        ({"prior": "fpi"}, "'theirs'.* received prior"),
        ({"lambdas": [1e3]}, "received lambdas"),
        ({"relative_weights": [1]}, "received relative_weights"),
        ({"flow": "mef", "prior": "own"}, "unknown prior 'own'"),
    ],
)
def test_another_prior_is_refused(project, experiment, message):
    with pytest.raises(ConfigError, match=message) as caught:
        project.resolve_config(make_overrides("nothing", EXPERIMENT | experiment))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flow", "message"),
    [({"revision": "main"}, "flows.theirs.revision"), ({"lambda": -1}, "flows.theirs.lambda"), ({"depth": 3}, "depth")],
)
def test_a_wrong_block_is_refused(project, flow, message):
    with pytest.raises(ConfigError, match=message):
        project.resolve_config(make_overrides(**flow))


def test_no_claim_is_about_draws_of_one_model(project):
    claim = {
        "statement": "Ours is better",
        "first": {"table": "table2", "row": "ours"},
        "second": {"row": "theirs"},
        "comparisons": [{"smallest_effect": 1}],
    }
    ours = {"label": "ours", "dataset": "digits", "lambdas": [1e3], "classifier": None}
    overrides = make_overrides("nothing", ours, EXPERIMENT | {"label": "theirs"})
    with pytest.raises(ConfigError, match=r"claims\.mine.*second: expected a row whose seeds are trainings"):
        project.resolve_config(overrides | {"claims": {"mine": claim}})


def test_a_figure_of_a_trained_model_shows_its_own_run(project):
    overrides = make_overrides(**{"lambda": 7})
    figures = {"samples": {"dataset": "digits", "flow": "theirs", "temperatures": [1.0]}}
    figure = project.resolve_config(overrides | {"figures": figures}).figures["samples"]
    assert (figure.prior, figure.weight) == ("own", 7)


def test_a_trained_model_may_have_every_flow_and_prior_of_the_users_files(project):
    code = "from nfpi.flows import register_flow\n@register_flow('planar')\ndef build(shape, settings): ...\n"
    extension = project.write("planar.py", code)
    config = project.resolve_config(make_overrides() | {"extensions": [str(extension)]})
    assert config.list_extensions(flow="theirs") == [extension]
    assert config.list_extensions(flow="mef", prior="fpi") == []
