"""The relative weight s₀: λ in units that mean the same for every number of classes and dimensions."""

from __future__ import annotations

import pytest

from nfpi.config.base import ConfigError, Settings
from nfpi.config.priors import PRIORS, compute_relative_weight, compute_weight
from nfpi.config.settings import Config

PIXELS = 3 * 32 * 32


def test_the_released_weights_of_cifar_are_one_relative_weight():
    assert compute_relative_weight(3e5, 10, 10, PIXELS) == pytest.approx(1.767, abs=1e-3)
    assert compute_relative_weight(3e6, 10, 100, PIXELS) == compute_relative_weight(3e5, 10, 10, PIXELS)


def test_a_weight_has_four_significant_digits():
    assert compute_weight(2, 10, 3, PIXELS) == 101900
    assert compute_weight(0.2, 10, 10, 64) == 707.3
    assert compute_weight(0, 10, 10, 64) == 0


@pytest.mark.parametrize("alpha", [0.5, 10, 300])
def test_each_of_the_weights_gives_the_other(alpha):
    weight = compute_weight(3, alpha, 10, PIXELS)
    assert compute_relative_weight(weight, alpha, 10, PIXELS) == pytest.approx(3, rel=5e-4)


def test_relative_weights_become_the_lambdas_of_the_data_set_and_the_prior(project):
    rows = [
        {"dataset": dataset, "prior": prior, "relative_weights": [2, 0, "0.5"], "classifier": None}
        for dataset, prior in (("digits", "fpi"), ("mine", "wide"))
    ]
    config = project.resolve_config(
        datasets={
            "digits": {"source": "digits", "overrides": {"nfa": {"axes": 3}}},
            "mine": {"source": "imagefolder", "folder": "mine", "classes": 3, "shape": [4, 8, 3]},
        },
        priors={"fpi": {}, "wide": {"alpha": 20}},
        presets={"small": {"tables": {"table2": {"experiments": rows}}}},
        figures={"samples_by_weight": {"dataset": "mine", "prior": "wide", "relative_weights": [0, 0.5, 2]}},
    )
    digits, mine = config.tables["table2"].experiments
    assert digits.weights == [0, compute_weight(0.5, 10, 10, 64), compute_weight(2, 10, 10, 64)]
    assert mine.weights == [0, compute_weight(0.5, 20, 3, 96), compute_weight(2, 20, 3, 96)]
    assert config.figures["samples_by_weight"].lambdas == mine.weights
    again = Config.model_validate(config.model_dump())
    for other in (again, config.for_dataset("digits")):
        assert (other.tables, other.figures) == (config.tables, config.figures)


LATENTS = {"source": "imagefolder", "folder": "mine", "vae": "vae", "classes": 3, "shape": [32, 32, 3]}
FAULTS = {
    "both": ({"lambdas": [1]}, {}, "lambdas, relative_weights: "),
    "no prior": ({"prior": None}, {}, "without a prior"),
    "prior without alpha": ({"prior": "gmm"}, {"priors": {"gmm": {"method": "flat"}}}, "'gmm' has no alpha"),
    "unknown size": ({}, {"datasets": {"digits": {"source": "imagefolder"}}}, "datasets.digits with classes and shape"),
    "latents": ({}, {"datasets": {"digits": LATENTS}}, "expected lambdas"),
}


@pytest.mark.parametrize(("changes", "groups", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_weights_that_cannot_be_computed_are_refused_in_one_line(project, changes, groups, message):
    PRIORS.register("flat", Settings, "nfpi.priors.fixed_point:fit_prior", uses_weight=True, learned=False)
    experiment = {"dataset": "digits", "relative_weights": [2]} | changes
    with pytest.raises(ConfigError) as error:
        project.resolve(presets={"small": {"tables": {"table2": {"experiments": [experiment]}}}}, **groups)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_figure_has_one_of_the_weights(project):
    for weights in ({"lambdas": [3], "relative_weights": [2]}, {}):
        with pytest.raises(ConfigError, match=r"figures\.samples_by_weight: lambdas, relative_weights"):
            project.resolve(figures={"samples_by_weight": {"dataset": "digits"} | weights})
