"""Main results, chosen among the rows of tables."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from nfpi.page.headlines import show_headlines


def make_row(name="nf_acc", value=80.0, *, seeds=1, paper=math.nan, **cells):
    row = {"row": "", "dataset": "animals", "flow": "mef", "prior": "fpi", "lambda": 1e4, "classifier": ""}
    row |= {"augmentation": "", "images": 100, "best": True, "chosen_by": f"validation_{name}", "validation": value}
    row |= {name: value, f"{name}_std": 1.0, f"{name}_low": value - 8, f"{name}_high": value + 4}
    row |= {f"{name}_seeds": seeds, f"paper_{name}": paper, f"{name}_difference": value - paper}
    return row | cells


def show(*rows):
    return list(show_headlines([pd.DataFrame([row]) for row in rows]))


def test_the_main_result_is_the_best_on_validation_of_the_chosen_rows():
    chosen = make_row(value=80.0, validation=82.0)
    others = [make_row(value=95.0, validation=81.0), make_row(value=99.0, validation=99.0, best=False)]
    by_density = make_row(value=97.0, chosen_by="validation_bits_per_dim")
    (headline,) = show(*others, chosen, by_density)
    assert headline.value == "80 %"
    assert headline.of == "mef, fpi, λ = 10⁴"
    assert headline.notes == ["95 % interval 72 to 84", "chosen by Validation NF-Acc: 82.0 %"]


def test_the_classifier_of_samples_is_that_of_the_main_flow():
    sampled = {name: value for name, value in make_row("cnn_acc", 60.0, paper=61.0).items() if "cnn_acc" in name}
    other = make_row(value=70.0) | dict.fromkeys(sampled, 99.0)
    flow, taught = show(other, make_row(value=80.0) | sampled | {"chosen_by": "validation_nf_acc"})
    assert (flow.metric, taught.metric, taught.value) == ("nf_acc", "cnn_acc", "60 %")
    assert "the paper: 61 % (difference −1)" in taught.notes


def test_a_classifier_of_real_images_has_a_headline_of_its_own():
    real = make_row("top1", 85.0, flow="", prior="", classifier="swin", augmentation="nfa", **{"lambda": math.nan})
    _, classifier = show(make_row(), real)
    assert (classifier.label, classifier.of) == ("Top-1 on animals", "swin, nfa")


@pytest.mark.parametrize(("prior", "shown"), [("fpi", True), ("gmm", True), ("fpi+moments", False)])
def test_the_head_compares_with_lambda_0_as_trained_or_refitted(prior, shown):
    baseline = make_row(value=50.0, validation=40.0, seeds=2, **{"lambda": 0.0})
    (headline,) = show(baseline, make_row(prior=prior, seeds=2))
    assert headline.notes[0] == "mean of 2 seeds, standard deviation 1.0"
    assert ("mef, fpi, λ = 0: 50.0 %" in headline.notes) == shown
