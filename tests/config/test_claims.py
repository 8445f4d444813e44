"""Claims: what names a row that is not there, or a test that cannot be made, is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nfpi.config.base import ConfigError
from nfpi.config.claims import Claim
from nfpi.config.resolution import resolve
from nfpi.config.settings import Config

ROOT = Path(__file__).parents[2]
OURS = {"table": "table3", "row": "#4 KLD on μ and Σ"}
THEIRS = {"table": "table3", "row": "#1 w/o KLD (λ = 0)"}
NFA = {"table": "table5", "row": "NFA"}
MINE = {"statement": "Ours is better", "comparisons": [{"first": OURS, "second": THEIRS, "smallest_effect": 0.5}]}
EXPERIMENTS = [{"label": "mine", "dataset": "digits", "lambdas": [1], "classifier": None}]


def resolve_demo(**settings: Any) -> Config:
    return resolve(ROOT / "config.yaml", ROOT / "presets", {"preset": "demo"} | settings).config


def config_with(preset: str = "demo", **comparison: Any) -> Config:
    return config_of([{"first": OURS, "second": THEIRS, "smallest_effect": 0.5} | comparison], preset)


def config_of(comparisons: Any, preset: str = "demo", **common: Any) -> Config:
    claim = {"statement": "Ours is better", **common, "comparisons": comparisons}
    return resolve_demo(preset=preset, claims={"mine": claim})


def test_what_is_not_said_is_the_default():
    (comparison,) = config_with().claims["mine"].comparisons
    assert (comparison.metric, comparison.direction, comparison.test) == ("nf_acc", "greater", "auto")
    assert comparison.first.weight == "best"


def test_what_a_claim_says_is_said_for_all_its_comparisons():
    own = {"first": THEIRS, "second": OURS, "metric": "nf_acc", "direction": "less", "smallest_effect": 2}
    common = {"first": OURS, "second": THEIRS, "metric": "cnn_acc", "smallest_effect": 0.5, "test": "paired_t"}
    first, second = config_of([{}, own], **common).claims["mine"].comparisons
    (in_full,) = config_with(**common).claims["mine"].comparisons
    assert first == in_full
    assert second == config_with(**own, test="paired_t").claims["mine"].comparisons[0]


def test_a_comparison_says_a_part_of_a_row():
    at_ends = [{"first": {"lambda": "max"}}, {"first": {"row": THEIRS["row"], "lambda": 0}}]
    claim = config_of(at_ends, first=OURS, second=THEIRS, smallest_effect=1).claims["mine"]
    rows = [(part.first.table, part.first.row, part.first.weight) for part in claim.comparisons]
    assert rows == [("table3", OURS["row"], "max"), ("table3", THEIRS["row"], 0)]


@pytest.mark.parametrize("own", [{"table": "table1", "row": "NFπ"}, {"value": 3}])
def test_a_row_that_says_its_table_and_a_constant_stand_by_themselves(own):
    common = {"first": OURS, "second": THEIRS | {"lambda": 0}, "smallest_effect": 1}
    (comparison,) = config_of([{"second": own}], **common).claims["mine"].comparisons
    assert comparison.second.model_dump(exclude_unset=True) == own


def test_a_second_row_is_of_the_table_and_the_data_set_of_the_first():
    first = {"table": "table3", "dataset": "cifar100", "row": OURS["row"]}
    (comparison,) = config_with("paper", first=first, second={"row": THEIRS["row"]}).claims["mine"].comparisons
    assert (comparison.second.table, comparison.second.dataset) == ("table3", "cifar100")
    assert comparison.second.row == THEIRS["row"]
    parts: list[dict[str, Any]] = [{"first": {"dataset": name}} for name in ("cifar10", "cifar100")]
    claim = config_of(parts, "paper", first=OURS, second={"row": THEIRS["row"]}, smallest_effect=1).claims["mine"]
    assert [part.second.dataset for part in claim.comparisons] == ["cifar10", "cifar100"]


def test_claims_are_handed_on_in_full():
    for claim in config_of([{}], "digits", first=OURS, second=THEIRS, smallest_effect=1).claims.values():
        again = Claim.model_validate_json(claim.model_dump_json())
        assert again.comparisons == claim.comparisons
        assert again.model_dump() == claim.model_dump()


@pytest.mark.parametrize(
    ("changes", "one_seed", "more_seeds", "predictions"),
    [
        ({}, "mcnemar", "paired_t", (True, False)),
        ({"metric": "bits_per_dim"}, "paired_t", "paired_t", (False, False)),
        ({"second": {"value": 90}}, "paired_t", "paired_t", (False, False)),
        ({"metric": "divergence"}, "mcnemar", "mcnemar", (False, False)),  # over seeds
        ({"test": "paired_t"}, "paired_t", "paired_t", (False, False)),
        ({"test": "mcnemar"}, "mcnemar", "mcnemar", (True, True)),
    ],
)
def test_the_test_follows_from_the_number_of_seeds(changes, one_seed, more_seeds, predictions):
    (comparison,) = config_with(**changes).claims["mine"].comparisons
    assert (comparison.choose_test(1), comparison.choose_test(2)) == (one_seed, more_seeds)
    assert (comparison.needs_predictions(1), comparison.needs_predictions(2)) == predictions


@pytest.mark.parametrize(
    ("common", "message"),
    [
        ({"metric": "nf_ac"}, "claims.mine.metric: "),
        ({"smalest_effect": 1}, "'claims.mine.smalest_effect'"),
        ({"first": {"row": "ours"}, "smallest_effect": 1}, "claims.mine.comparisons.0.first: "),
    ],
)
def test_a_fault_in_what_a_claim_says_for_all_is_one_line(common, message):
    with pytest.raises(ConfigError) as caught:
        config_of([{"second": THEIRS}], **common)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("comparisons", [None, 3, [3], []])
def test_comparisons_of_another_form_are_one_line(comparisons):
    with pytest.raises(ConfigError, match=r"claims\.mine\.comparisons[^\n]*$"):
        config_of(comparisons, first=OURS, smallest_effect=1)


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"first": {"table": "tabel3"}}, "first: unknown table 'tabel3' (did you mean 'table3'?)"),
        ({"first": OURS | {"row": "#4 KLD"}}, "did you mean '#4 KLD on μ and Σ on digits'?"),
        ({"first": OURS | {"row": "xyz"}}, "#1 w/o KLD (λ = 0) on digits, #2 KLD on μ only on digits"),
        ({"first": OURS | {"dataset": "cifar10"}}, "#4 KLD on μ and Σ on digits"),
        ({"first": {"table": "table3", "dataset": "x"}}, "'… on x' (known: "),
        ({"first": {"table": "table3"}}, "'table3', received 4"),
        ({"first": OURS | {"lambda": 5}}, "lambda: expected a λ of the experiment (10000, 30000)"),
        ({"first": OURS | {"lambda": "inner_best"}}, "inner_best needs at least 3 λ, the experiment has 2"),
        ({"first": {"table": "table2", "lambda": "equal_density"}, "second": {"value": 3}}, "equal_density needs"),
        ({"second": {"row": "#1 w/o KLD (λ = 0)", "lambda": "equal_density"}}, "equal_density is for `first` only"),
        ({"metric": "nf_ac"}, "unknown metric 'nf_ac'"),
        ({"first": {"table": "table1", "row": "NFπ"}, "metric": "cnn_acc"}, "received cnn_acc, of a generated model"),
        ({"first": NFA, "second": {"row": "none"}}, "metric: expected one of a real model, received nf_acc"),
        ({"first": NFA, "second": {"row": "none"}, "metric": "cnn_acc"}, "received cnn_acc"),
        ({"first": NFA, "second": {"row": "none"}, "metric": "validation_ece"}, "received validation_ece"),
        ({"metric": "top1"}, "model, received top1, of a real model"),
        ({"first": {"value": 3}}, "first: expected a row of a table"),
        ({"second": {"value": 3, "table": "table3"}}, "second: "),
        ({"second": {"value": 3}, "test": "mcnemar"}, "received mcnemar"),
        ({"metric": "bits_per_dim", "test": "mcnemar"}, "received mcnemar"),
        ({"metric": "divergence", "test": "paired_t"}, "received paired_t"),
        ({"metric": "divergence", "second": {"value": 3}}, "second: expected a row of a table"),
    ],
)
def test_what_cannot_be_compared_is_one_line(comparison, message):
    with pytest.raises(ConfigError) as caught:
        config_with(**comparison)
    assert message in str(caught.value)
    assert "claims.mine.comparisons.0" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("metric", ["top1", "real_top5", "validation_top1", "ece", "divergence"])
def test_classifiers_trained_on_real_images_have_these_metrics(metric):
    (comparison,) = config_with(first=NFA, second={"row": "none"}, metric=metric).claims["mine"].comparisons
    assert comparison.metric == metric


def test_rows_on_two_data_sets_are_not_compared():
    first, second = ({"table": "table3", "row": OURS["row"], "dataset": name} for name in ("cifar10", "cifar100"))
    with pytest.raises(ConfigError, match="cifar10 and cifar100"):
        config_with("paper", first=first, second=second)


def test_inherited_claims_can_be_left_out_singly_or_at_once():
    config = resolve_demo(claims={"repulsion": None})
    assert "repulsion" not in config.claims
    assert "gradient_descent" in config.claims
    assert list(resolve_demo(claims={"*": None, "mine": MINE}).claims) == ["mine"]
    assert resolve_demo(claims={"*": "null"}).claims == {}


def test_claims_and_figures_of_tables_that_are_all_left_out_are_dropped():
    tables = {"*": None, "own": {"experiments": EXPERIMENTS}}
    config = resolve_demo(tables=tables)
    assert list(config.tables) == ["own"]
    assert config.claims == {}
    assert "accuracy_against_weight" not in config.figures
    assert "samples" in config.figures
    with pytest.raises(ConfigError, match="table2"):
        resolve_demo(tables=tables, figures={"accuracy_against_weight": {"table": "table2"}})


def test_a_claim_about_a_table_that_is_replaced_is_left_out_unless_its_rows_are_there():
    tables = {"table3": {"experiments": EXPERIMENTS}}
    claims = resolve_demo(tables=tables).claims
    assert "ablation" not in claims
    assert "gradient_descent" in claims
    assert "repulsion" not in claims
    with pytest.raises(ConfigError, match=r"table3.*#4"):
        resolve_demo(tables=tables, claims={"mine": MINE})
