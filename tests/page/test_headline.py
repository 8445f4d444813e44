"""Main results, chosen among runs of several seeds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nfpi.page.headlines import show_headlines
from nfpi.results.recorded.runs import RecordedRun

from .conftest import FITTED, ON_GENERATED_IMAGES, N

LUCKY, STEADY = replace(FITTED, weight=1.0), replace(FITTED, weight=2.0)
DIVERGENCE = {"iteration": 3, "class_index": 2, "quantity": "variance", "lambda": 1.0, "context": {}}


def record(run, seed, **metrics):
    record = {"metrics": metrics, "n": N} if metrics else {"diverged": DIVERGENCE}
    return RecordedRun(replace(run, seed=seed), Path(), record)


def record_seeds(run, value, *, name="nf_acc", diverged=()):
    values = {name: value, f"validation_{name}": value}
    return [record(run, seed, **({} if seed in diverged else values)) for seed in range(4)]


def test_a_flow_of_which_most_seeds_diverged_is_not_the_main_result():
    lucky, steady = record_seeds(LUCKY, 99.0, diverged=(0, 1, 2)), record_seeds(STEADY, 95.0)
    (headline,) = show_headlines([*lucky, *steady], [])
    assert headline.value == "95.0 %"
    assert "λ = 2" in headline.of
    (headline,) = show_headlines(lucky, [])
    assert "λ = 1" in headline.of, "no other is left"


def test_the_classifier_of_samples_is_that_of_the_main_flow():
    flows = [*record_seeds(LUCKY, 99.0, diverged=(0, 1, 2)), *record_seeds(STEADY, 95.0)]
    taught = [
        item
        for weight, value in ((1.0, 90.0), (2.0, 80.0))
        for item in record_seeds(replace(ON_GENERATED_IMAGES, weight=weight), value, name="cnn_acc")
    ]
    _, headline = show_headlines([*flows, *taught], [])
    assert (headline.metric, headline.value) == ("cnn_acc", "80.0 %")
    assert not any(note.startswith("chosen by") for note in headline.notes), "its flow was chosen"


@pytest.mark.parametrize(("classifier", "paper"), [("resnet18", "71"), ("resnet18_released", "61")])
def test_the_papers_number_is_that_of_the_classifier(classifier, paper):
    run = replace(FITTED, classifier=classifier)
    recorded = [*record_seeds(FITTED, 80.0), *record_seeds(run, 70.0, name="cnn_acc")]
    rows = [("resnet18", 70.0, 71.0), ("resnet18_released", 70.0, 61.0)]
    frame = pd.DataFrame(rows, columns=["classifier", "cnn_acc", "paper_cnn_acc"])
    frame = frame.assign(dataset="animals", flow="mef", prior="fpi", augmentation="standard")  # as tables show it
    frame["lambda"] = 1e4
    _, headline = show_headlines(recorded, [frame])
    assert f"the paper: {paper} %" in " ".join(headline.notes)


@pytest.mark.parametrize(
    ("prior", "weight", "shown", "paper", "difference"),
    [("fpi", 1e4, 1e4, 80.02, "+0.0"), ("fpi", 1e4, 1e4, 81.0, "−1.0"), ("simplex", 0.0, math.nan, 79.0, "+1.0")],
)
def test_the_difference_from_the_papers_number_is_that_of_the_table(prior, weight, shown, paper, difference):
    """There is none at λ = 0, but one for a prior without λ; and no difference of −0.0."""
    recorded = record_seeds(replace(FITTED, prior=prior, weight=weight), 80.0)
    row = {"dataset": "animals", "flow": "mef", "prior": prior, "lambda": shown, "paper_nf_acc": paper}
    (headline,) = show_headlines(recorded, [pd.DataFrame([row])])
    assert f"(difference {difference})" in " ".join(headline.notes)


def test_draws_of_an_imported_model_are_not_called_seeds():
    (headline,) = show_headlines(record_seeds(replace(FITTED, prior="own", weight=0.0), 80.0), [])
    assert headline.notes[0] == "mean of 4 draws, standard deviation 0"
