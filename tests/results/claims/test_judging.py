"""Claims judged on collected metrics whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nfpi.config.claims import Claim
from nfpi.config.settings import Config
from nfpi.results.claims.judging import judge_claims
from nfpi.results.claims.layout import lay_out_claims, read_claims, write_claims
from nfpi.results.claims.sides import ClaimData
from nfpi.results.recorded.predictions import Predictions
from nfpi.results.tables.building import TableError
from nfpi.results.tables.markup import tables_to_html, tables_to_latex, tables_to_markdown
from nfpi.results.tables.rows import list_table_rows
from nfpi.runs import Run

SEEDS = tuple(range(10))
OURS = {"dataset": "digits", "label": "ours", "lambdas": [10, 100, 1000], "classifier": "resnet18"}
THEIRS = {"dataset": "digits", "label": "theirs", "prior": "gmm", "lambdas": [10], "classifier": None}
DIVERGED = "diverged: loss of the flow at step 4"

Values = Callable[[str, float, int], dict[str, float] | str | None]
"""What a run of a prior, λ and seed measured; text: how it diverged; None: it is not there."""


def comparison(**changes: Any) -> dict[str, Any]:
    """`ours` against `theirs` on NF-Acc."""
    rows = {"first": {"table": "t", "row": "ours"}, "second": {"table": "t", "row": "theirs"}}
    return {**rows, "smallest_effect": 0.5, **changes}


@pytest.fixture
def judge(make_config, make_metric_rows, make_frame, reference) -> Callable[..., pd.DataFrame]:
    """Verdicts on one claim of these comparisons, from what the runs measured."""

    def make(values: Values, *comparisons: dict[str, Any], seeds: tuple[int, ...] = SEEDS, **more: Any) -> pd.DataFrame:
        config: Config = make_config(OURS, THEIRS, seeds=seeds)
        rows = [
            row.model_copy(update={"split_ratio": more.get("split_ratio", 0.0)}) for row in list_table_rows(config, "t")
        ]
        found = []
        for run in dict.fromkeys(run for row in rows for run in row.runs):
            value = values(str(run.prior), float(run.weight or 0), run.seed)
            if value is None:
                continue
            if isinstance(value, str):
                found.append(make_metric_rows(run, status=value))
                continue
            of_run = {name: number for name, number in value.items() if ("cnn" in name) == (run.classifier is not None)}
            found.append(make_metric_rows(run, **of_run))
        claim = {"number": 3, "statement": "Ours is better", "comparisons": list(comparisons) or [comparison()]}
        claim["without_seeds"] = more.get("without_seeds", [])
        data = ClaimData(make_frame(*found), config.tables, {"t": rows}, reference, more.get("predictions", none_read))
        return judge_claims({"c": Claim.model_validate(claim)}, data)

    return make


WEIGHTS = (1, 10, 100, 1000)


@pytest.fixture
def choose(make_config, make_metric_rows, make_frame, reference) -> Callable[..., dict[str, Any]]:
    """Judge `ours`, at the λ of WEIGHTS that `choice` is, on what each run measured (text: how it diverged)."""

    def make(
        measure: Callable[[Run], dict[str, float] | str],
        choice: str = "inner_best",
        metric: str = "nf_acc",
        **more: Any,
    ) -> dict[str, Any]:
        config: Config = make_config(OURS | {"lambdas": WEIGHTS} | more, THEIRS | more, seeds=SEEDS)
        rows = list_table_rows(config, "t")
        found = []
        for run in dict.fromkeys(run for row in rows for run in (row.classifier_runs if more else row.flow_runs)):
            measured = measure(run)
            values = {"status": measured} if isinstance(measured, str) else measured
            found.append(make_metric_rows(run, **values))
        compared = comparison(first={"table": "t", "row": "ours", "lambda": choice}, metric=metric)
        claim = Claim.model_validate({"statement": "Ours is better", "comparisons": [compared]})
        data = ClaimData(make_frame(*found), config.tables, {"t": rows}, reference, none_read)
        return only(judge_claims({"c": claim}, data))

    return make


def claims_to_markdown(frame: pd.DataFrame) -> str:
    return tables_to_markdown(lay_out_claims(frame))


def claims_to_latex(frame: pd.DataFrame) -> str:
    return tables_to_latex(lay_out_claims(frame))


def claims_to_html(frame: pd.DataFrame) -> str:
    return tables_to_html(lay_out_claims(frame))


def none_read(run: Run) -> Predictions:
    raise AssertionError(f"predictions of {run.folder} are not needed")


def noise(seed: int, *key: float) -> float:
    return float(np.random.default_rng([seed, *map(int, key)]).normal(0, 0.5))


def effect(size: float) -> Values:
    """`ours` is better by this much; λ = 100 is the best on the validation split."""

    def values(prior: str, weight: float, seed: int) -> dict[str, float]:
        ours = prior == "fpi"
        base = 70 + 3 * noise(seed) + noise(seed, weight, ours) + (size if ours and weight == 100 else 0)
        validation = {10: 90.0, 100: 95.0, 1000: 91.0}[weight]
        inner = 5.0 if weight == 100 else 0.0
        return {
            "nf_acc": base,
            "validation_nf_acc": validation,
            "cnn_acc": 60 + inner,
            "validation_cnn_acc": 60 + inner,
        }

    return values


def only(frame: pd.DataFrame) -> dict[str, Any]:
    assert len(frame) == 1
    row: dict[str, Any] = frame.iloc[0].to_dict()
    return row


def test_a_known_effect_is_found_at_the_lambda_that_validation_chooses(judge):
    row = only(judge(effect(4.0)))
    assert (row["verdict"], row["claim_verdict"]) == ("holds", "replicated")
    assert row["first_lambda"] == 100
    assert row["low"] < 4 < row["high"]
    assert (row["seeds"], row["planned_seeds"]) == (10, 10)
    assert pd.isna(row["seeds_needed_low"])


@pytest.mark.parametrize(
    ("size", "changes", "verdict", "of_claim"),
    [
        (-4.0, {}, "contradicted", "contradicted"),
        (-4.0, {"direction": "less"}, "holds", "replicated"),
        (0.0, {"smallest_effect": 3.0}, "does not hold", "not replicated"),
        (0.0, {"smallest_effect": 3.0, "direction": "not_less"}, "holds", "replicated"),
    ],
)
def test_other_effects_and_directions(judge, size, changes, verdict, of_claim):
    row = only(judge(effect(size), comparison(**changes)))
    assert (row["verdict"], row["claim_verdict"]) == (verdict, of_claim)
    assert row["difference"] < 0 or size == 0


def test_one_seed_decides_nothing_over_seeds(judge):
    row = only(judge(effect(4.0), comparison(test="paired_t"), seeds=(3,)))
    assert (row["verdict"], row["claim_verdict"], row["seeds"]) == ("inconclusive", "inconclusive", 1)


def test_two_noisy_seeds_say_how_many_would_decide(judge):
    row = only(judge(effect(0.2), seeds=(0, 1)))
    assert row["verdict"] == "inconclusive"
    assert 2 < row["seeds_needed_low"] < row["seeds_needed_high"]


def test_a_seed_that_diverged_is_left_out_and_counted(judge):
    def values(prior: str, weight: float, seed: int) -> dict[str, float] | str:
        return DIVERGED if prior == "fpi" and weight == 100 and seed == 4 else effect(4.0)(prior, weight, seed)

    frame = judge(values)
    row = only(frame)
    assert (row["verdict"], row["seeds"], row["first_diverged"], row["second_diverged"]) == ("holds", 9, 1, 0)
    frame["first"] = "[a]*"
    assert r"seeds of [a]\*, λ" in claims_to_markdown(frame)
    assert "seeds of [a]*, λ" in claims_to_html(frame)
    assert "seeds of [a]*, " in " ".join(claims_to_latex(frame).split())


@pytest.mark.parametrize(("prior", "expected"), [("fpi", "does not hold"), ("gmm", "inconclusive")])
def test_a_row_that_always_diverges(judge, prior, expected):
    at_ten = comparison(first={"table": "t", "row": "ours", "lambda": 10})
    row = only(judge(lambda *run: DIVERGED if run[:2] == (prior, 10) else effect(4.0)(*run), at_ten))
    assert (row["verdict"], row["seeds"]) == (expected, 0)


def test_divergence_itself_is_compared_over_seeds(judge):
    stable = {"table": "t", "row": "ours", "lambda": 10}
    more = {"metric": "divergence", "direction": "less", "smallest_effect": 50}
    row = only(judge(lambda *run: DIVERGED if run[0] == "gmm" else effect(0.0)(*run), comparison(first=stable, **more)))
    assert (row["verdict"], row["difference"], row["seeds"]) == ("holds", -100, 10)


@pytest.mark.parametrize("smallest_effect", [10, 70])
def test_divergence_on_one_seed_decides_nothing(judge, smallest_effect):
    stable = {"table": "t", "row": "ours", "lambda": 10}
    more = {"metric": "divergence", "direction": "less", "smallest_effect": smallest_effect}

    def run_one_seed(*run):
        return effect(0.0)(*run) if run[2] == 0 else None

    assert only(judge(run_one_seed, comparison(first=stable, **more)))["verdict"] == "inconclusive"


def test_missing_runs_are_left_out_and_no_runs_are_not_run(judge):
    row = only(judge(lambda *run: None if run[0] == "fpi" and run[2] > 6 else effect(4.0)(*run)))
    assert (row["verdict"], row["seeds"], row["planned_seeds"]) == ("holds", 7, 10)
    frame = judge(lambda *run: None)
    assert (only(frame)["verdict"], only(frame)["claim_verdict"]) == ("not run", "not run")


def test_seeds_that_were_looked_at_before_do_not_count(judge):
    def run(*run):
        return effect(4.0)(*run) | ({"nf_acc": -100.0} if run[::2] == ("fpi", 0) else {})

    row = only(judge(run, without_seeds=[0]))
    assert (row["verdict"], row["seeds"], row["planned_seeds"]) == ("holds", 9, 9)
    row = only(judge(effect(4.0), without_seeds=[0], seeds=(0,)))
    assert (row["verdict"], row["seeds"]) == ("not run", 0)


def test_the_ends_of_a_range_and_the_best_within(judge):
    def row(weight: str) -> dict[str, str]:
        return {"table": "t", "row": "ours", "lambda": weight}

    parts = [
        comparison(first=row("inner_best"), second=row("max"), metric="cnn_acc"),
        comparison(first=row("inner_best"), second=row("min"), metric="cnn_acc"),
    ]
    frame = judge(effect(0.0), *parts)
    assert frame["first_lambda"].tolist() == [100, 100]
    assert frame["second_lambda"].tolist() == [1000, 10]
    assert set(frame["claim_verdict"]) == {"replicated"}


def test_a_constant_is_compared_with(judge):
    row = only(judge(effect(4.0), comparison(second={"value": 50}, smallest_effect=0)))
    assert (row["verdict"], row["second_value"]) == ("holds", 50)


def test_holm_adjusts_over_a_claim(judge):
    frame = judge(effect(0.6), *[comparison()] * 4)
    assert frame["p_adjusted"].iloc[0] == pytest.approx(min(1.0, 4 * frame["p_value"].iloc[0]))


def predictions(labels: np.ndarray, right: np.ndarray) -> Predictions:
    predicted = np.where(right, labels, (labels + 1) % 10).astype(np.int32)
    return Predictions(labels, predicted, np.zeros(len(labels), np.float32), np.zeros((len(labels), 10), np.float16))


@pytest.mark.parametrize("test", ["auto", "mcnemar"])
def test_images_are_compared_within_a_seed(judge, test):
    def read(run: Run) -> Predictions:
        labels = np.random.default_rng(run.seed).integers(0, 10, 400).astype(np.int32)
        right = np.random.default_rng([run.seed, run.prior == "fpi"]).random(400) < (
            0.95 if run.prior == "fpi" else 0.8
        )
        return predictions(labels, right)

    row = only(judge(effect(15.0), comparison(test=test), seeds=(5,), predictions=read))
    assert (row["verdict"], row["test"], row["seeds"]) == ("holds", "McNemar", 1)


def test_images_do_not_stand_in_for_seeds_that_diverged(judge):
    def values(prior: str, weight: float, seed: int) -> dict[str, float] | str:
        return DIVERGED if prior == "fpi" and weight == 100 and seed > 0 else effect(4.0)(prior, weight, seed)

    at_100 = comparison(first={"table": "t", "row": "ours", "lambda": 100})
    row = only(judge(values, at_100, seeds=(0, 1, 2)))  # no predictions are read
    assert (row["verdict"], row["seeds"], row["planned_seeds"]) == ("inconclusive", 1, 3)


def test_predictions_of_other_images_are_refused(judge):
    def read(run: Run) -> Predictions:
        labels = np.random.default_rng(len(run.folder)).integers(0, 10, 40).astype(np.int32)
        return predictions(labels, np.ones(40, bool))

    with pytest.raises(TableError, match="labels"):
        judge(effect(1.0), comparison(test="mcnemar"), seeds=(5,), predictions=read)


def test_files_of_all_forms(judge, tmp_path):
    frame = judge(effect(4.0), comparison(), comparison(direction="not_less", paper_difference=16.3))
    write_claims(frame, tmp_path)
    pd.testing.assert_frame_equal(read_claims(tmp_path / "claims.csv"), frame)
    assert {path.name for path in tmp_path.iterdir()} == {f"claims.{suffix}" for suffix in ("csv", "md", "tex", "html")}
    assert claims_to_latex(frame).isascii()


def test_overlapping_splits_widen_intervals_and_raise_p(judge):
    of_rows, of_constant = comparison(), comparison(second={"value": 70})
    plain = judge(effect(1.0), of_rows, of_constant)
    corrected = judge(effect(1.0), of_rows, of_constant, split_ratio=0.25)
    assert corrected["split_ratio"].tolist() == [0.25, 0.25]
    widths = [frame["high"] - frame["low"] for frame in (plain, corrected)]
    # √(1/10 + 1/4) / √(1/10)
    assert (widths[1] / widths[0]).tolist() == pytest.approx([3.5**0.5] * 2)
    assert (corrected["p_value"] > plain["p_value"]).all()
    assert corrected["difference"].equals(plain["difference"])
    assert corrected["std"].equals(plain["std"])
    assert "Nadeau" in claims_to_markdown(corrected)
    assert "Nadeau" not in claims_to_markdown(plain)


def test_divergence_is_not_corrected(judge):
    of_divergence = comparison(metric="divergence", smallest_effect=50)

    def values(prior: str, weight: float, seed: int) -> dict[str, float] | str:
        return DIVERGED if prior == "fpi" and seed > 1 else effect(0.0)(prior, weight, seed)

    one, other = (judge(values, of_divergence, split_ratio=ratio) for ratio in (0.0, 0.25))
    assert only(one)["difference"] > 0
    pd.testing.assert_frame_equal(one, other)


def test_no_number_of_seeds_is_given_where_none_suffices(judge):
    small = comparison(smallest_effect=0.3)
    assert only(judge(effect(0.15), small, seeds=tuple(range(4))))["seeds_needed_low"] > 4
    row = only(judge(effect(0.15), small, seeds=tuple(range(4)), split_ratio=1.0))
    assert row["verdict"] == "inconclusive"
    assert pd.isna(row["seeds_needed_low"])


def test_rows_on_several_data_sets_are_told_apart(judge):
    frame = judge(effect(4.0), comparison(), comparison())
    assert "digits" not in claims_to_markdown(frame)
    frame.loc[1, "dataset"] = "other"
    for text in (claims_to_markdown(frame), claims_to_latex(frame), claims_to_html(frame)):
        assert "digits" in text
        assert "other" in text


# ---- λ that diverged, and what seeds share -------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["best", "inner_best"])
def test_a_row_whose_runs_all_diverged_has_run(judge, choice):
    def values(prior: str, weight: float, seed: int) -> dict[str, float] | str:
        return DIVERGED if prior == "fpi" else effect(0)(prior, weight, seed)

    row = only(judge(values, comparison(first={"table": "t", "row": "ours", "lambda": choice})))
    assert (row["verdict"], row["claim_verdict"]) == ("does not hold", "not replicated")
    assert row["first_diverged"] == 10


@pytest.mark.parametrize("choice", ["best", "inner_best"])
def test_a_lambda_of_lucky_seeds_is_not_chosen(choose, choice):
    def measure(run: Run) -> dict[str, float] | str:
        lucky = run.weight == 100 and run.prior == "fpi"
        if lucky and run.seed < 9:
            return DIVERGED
        validation = 99 if lucky else 95 if run.weight == 10 else 90
        return {"nf_acc": 90 + noise(run.seed, run.weight), "validation_nf_acc": validation}

    assert choose(measure, choice)["first_lambda"] == 10


@pytest.mark.parametrize(("metric", "expected"), [("ece", 100), ("worst_class_acc", 100), ("nf_acc", 10)])
def test_the_inner_best_lambda_is_that_of_the_compared_metric(choose, metric, expected):
    """Also of a metric whose validation values have no entry of their own in the registry."""
    on_validation = {
        "nf_acc": {1: 80, 10: 95, 100: 90, 1000: 99},
        "worst_class_acc": {1: 60, 10: 70, 100: 80, 1000: 90},
        "ece": {1: 9, 10: 8, 100: 4, 1000: 2},  # lower is better
    }

    def measure(run: Run) -> dict[str, float]:
        values = {name: by_weight[run.weight] for name, by_weight in on_validation.items()}
        return values | {f"validation_{name}": value for name, value in values.items()}

    assert choose(measure, metric=metric)["first_lambda"] == expected


def test_without_validation_values_of_the_metric_the_inner_best_lambda_is_that_of_the_table(choose):
    """As the calibration of a classifier that is trained on real images."""
    top1 = {1: 80, 10: 95, 100: 90, 1000: 99}
    row = choose(
        lambda run: {"ece": top1[run.weight], "validation_top1": top1[run.weight]},
        metric="ece",
        classifier="swin",
        augmentation="nfa",
    )
    assert row["first_lambda"] == 10


@pytest.mark.parametrize(("density", "expected"), [(1.5, 65.0), (2.5, 90.0), (4.0, 82.5)])
def test_at_equal_density_the_metric_is_interpolated(choose, density, expected):
    """2.5 bits/dim lie between λ = 10 and 100 (75 %), and between 100 and 1000 (90 %): the better counts."""
    ours = {1: (1.0, 60.0), 10: (2.0, 70.0), 100: (3.0, 80.0), 1000: (2.0, 100.0)}
    ours_of_4_bits = {1: (1.0, 60.0), 10: (2.0, 70.0), 100: (3.0, 80.0), 1000: (5.0, 85.0)}

    def measure(run: Run) -> dict[str, float]:
        if run.prior == "gmm":
            return {"bits_per_dim": density if run.seed else 0.5, "nf_acc": 75.0 + run.seed}
        bits, accuracy = (ours_of_4_bits if density == 4 else ours)[run.weight]
        return {"bits_per_dim": bits, "nf_acc": accuracy}

    row = choose(measure, "equal_density")
    assert (row["first_value"], row["second_value"]) == (expected, 80.0)
    assert (row["seeds"], row["test"]) == (9, "paired t")  # seed 0 has fewer bits/dim than any λ
    assert pd.isna(row["first_lambda"])


def test_where_no_density_is_equal_the_comparison_is_inconclusive(choose):
    row = choose(lambda run: {"bits_per_dim": float(run.prior == "gmm"), "nf_acc": 90.0}, "equal_density")
    assert (row["verdict"], row["seeds"]) == ("inconclusive", 0)


def test_without_a_validation_split_no_lambda_is_chosen(choose):
    row = choose(lambda run: {"nf_acc": 90.0})
    assert row["verdict"] == "not run"
    assert pd.isna(row["first_lambda"])


def test_no_number_of_seeds_is_given_where_only_diverged_runs_prevent_a_verdict(judge):
    def values(prior: str, weight: float, seed: int) -> dict[str, float] | str:
        return DIVERGED if prior == "fpi" and weight == 100 and seed < 5 else effect(4.0)(prior, weight, seed)

    row = only(judge(values))
    assert (row["verdict"], row["first_diverged"]) == ("inconclusive", 5)
    assert pd.isna(row["seeds_needed_low"])


def test_other_comparisons_do_not_change_the_seeds_that_non_inferiority_needs(judge):
    """It is judged by its unadjusted interval."""
    one = comparison(direction="not_less")
    alone, *_ = judge(effect(-0.2), one, seeds=(0, 1, 2)).to_dict("records")
    beside, *_ = judge(effect(-0.2), one, comparison(), comparison(smallest_effect=2), seeds=(0, 1, 2)).to_dict(
        "records"
    )
    assert alone["verdict"] == beside["verdict"] == "inconclusive"
    assert alone["seeds_needed_low"] == beside["seeds_needed_low"] > 3


def test_an_effect_of_any_size_needs_seeds_for_the_one_that_was_found(judge):
    assert only(judge(effect(0.05), comparison(smallest_effect=0)))["seeds_needed_low"] > 10


def test_values_beside_one_seeds_images_are_of_that_seed(judge):
    def read(run: Run) -> Predictions:
        return predictions(np.zeros(100, np.int32), np.arange(100) >= (10 if run.prior == "fpi" else 30))

    row = only(judge(effect(4.0), comparison(test="mcnemar"), predictions=read))
    assert (row["test"], row["seeds"], row["difference"]) == ("McNemar", 1, 20)
    assert row["first_value"] == effect(4.0)("fpi", 100, 0)["nf_acc"]


def test_negative_numbers_have_the_minus_sign_of_the_markup(judge):
    frame = judge(effect(-4.0), comparison(direction="not_less", paper_difference=-16.3))
    assert r"\ensuremath{-}16.3" in claims_to_latex(frame)
    assert "−16.3" in claims_to_markdown(frame)
