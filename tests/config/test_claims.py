"""Claims: what names a row that is not there, or a test that cannot be made, is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nfpi.config import Config, ConfigError, resolve

ROOT = Path(__file__).parents[2]
OURS = {"table": "table3", "row": "#4 KLD on μ and Σ"}
THEIRS = {"table": "table3", "row": "#1 w/o KLD (λ = 0)"}


def config_with(preset: str = "demo", **comparison: Any) -> Config:
    values = {"first": OURS, "second": THEIRS, "smallest_effect": 0.5} | comparison
    claim = {"statement": "Ours is better", "comparisons": [values]}
    return resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset, "claims": {"mine": claim}}).config


def test_what_is_not_said_is_the_default():
    (comparison,) = config_with().claims["mine"].comparisons
    assert (comparison.metric, comparison.direction, comparison.test) == ("nf_acc", "greater", "paired_t")
    assert comparison.first.weight == "best"


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"first": {"table": "tabel3"}}, "first: unknown table 'tabel3' (did you mean 'table3'?)"),
        ({"first": OURS | {"row": "#4 KLD"}}, "table 'table3' has no row '#4 KLD' (did you mean '#4 KLD on μ and Σ'?)"),
        ({"first": {"table": "table3"}}, "expected one row of table 'table3', received 4 for any row"),
        ({"first": OURS | {"lambda": 5}}, "lambda: expected one of the experiment's (10000, 30000), received 5"),
        ({"first": OURS | {"lambda": "inner_best"}}, "inner_best needs at least three λ"),
        ({"metric": "nf_ac"}, "unknown metric 'nf_ac'"),
        ({"first": {"table": "table1", "row": "NFπ"}, "metric": "cnn_acc"}, "metric cnn_acc needs a classifier"),
        ({"first": {"value": 3}}, "first: expected a row of a table, received a constant"),
        (
            {"second": {"value": 3, "table": "table3"}},
            "expected a row (table, row) or a constant (value), and not both",
        ),
        ({"second": {"value": 3}, "test": "mcnemar"}, "expected paired_t for a constant, received mcnemar"),
        ({"metric": "bits_per_dim", "test": "bootstrap"}, "bootstrap compares accuracies"),
        ({"metric": "divergence"}, "expected mcnemar (over seeds) for divergence, received paired_t"),
        ({"direction": "not_less", "smallest_effect": 0}, "expected a margin above 0 for not_less, received 0"),
        ({"smallest_effect": -1}, "smallest_effect: "),
    ],
)
def test_what_cannot_be_compared_is_one_line(comparison, message):
    with pytest.raises(ConfigError) as caught:
        config_with(**comparison)
    assert message in str(caught.value)
    assert "claims.mine.comparisons.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_on_two_data_sets_are_not_compared():
    first, second = ({"table": "table3", "row": OURS["row"], "dataset": name} for name in ("cifar10", "cifar100"))
    with pytest.raises(ConfigError, match="expected rows on one data set, received cifar10 and cifar100"):
        config_with("paper", first=first, second=second)


def test_a_claim_of_a_preset_that_is_extended_can_be_left_out():
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"claims": {"repulsion": None}}).config
    assert "repulsion" not in config.claims
    assert "gradient_descent" in config.claims


@pytest.mark.parametrize("preset", ["demo", "digits", "paper", "cifar10_small", "fashion_mnist_small"])
def test_the_presets_have_claims(preset):
    config = resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": preset}).config
    assert "repulsion" in config.claims
    if preset == "digits":
        assert sorted(claim.number for claim in config.claims.values()) == list(range(1, 12))
