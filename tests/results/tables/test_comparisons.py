"""Rows of a table against the best one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from nfpi.config.experiments import TableSettings
from nfpi.results.recorded.predictions import find_predictions, write_predictions
from nfpi.results.statistics.significance import holm
from nfpi.results.tables.building import NO_PREDICTIONS, accuracy_table, compare_with_best
from nfpi.results.tables.summaries import Summary, TableError
from nfpi.runs import Run

IMAGES = 200
LABELS = torch.arange(IMAGES) % 4


def summary(values: dict[int, float]) -> Summary:
    numbers = list(values.values())
    mean = float(np.mean(numbers)) if numbers else math.nan
    return Summary(values, mean, math.nan, (math.nan, math.nan))


def measured(dataset: str, summaries: dict[str, Summary], split_ratio: float = 0.0) -> Any:
    """A row of a table of several seeds."""
    row = SimpleNamespace(dataset=dataset, split_ratio=split_ratio, runs_of=lambda name: [None] * 3)
    return SimpleNamespace(row=row, summaries=summaries)


def over_seeds(
    *rows: list[float], dataset: str = "digits", name: str = "nf_acc", split_ratio: float = 0.0
) -> list[Any]:
    return [measured(dataset, {name: summary(dict(enumerate(row)))}, split_ratio) for row in rows]


def test_all_rows_are_compared_with_the_best_by_paired_t_tests():
    rng = np.random.default_rng(0)
    rows = [list(rng.normal(mean, 0.5, 5)) for mean in (90, 95, 94.8)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = holm([stats.ttest_rel(rows[i], rows[j]).pvalue for i, j in pairs])
    best = int(np.argmax(np.mean(rows, axis=1)))
    found = compare_with_best(over_seeds(*rows), ["nf_acc"])
    assert found[best] == {"nf_acc_test": "paired t"}, "the best has no p"
    for p_value, pair in zip(expected, pairs, strict=True):
        if best in pair:
            (other,) = {*pair} - {best}
            assert found[other]["nf_acc_p"] == pytest.approx(p_value)


def test_rows_with_overlapping_splits_are_compared_by_the_corrected_test():
    rng = np.random.default_rng(0)
    first, second = rng.normal(90, 0.5, 5), rng.normal(92, 0.5, 5)
    rows = over_seeds(list(first), list(second), split_ratio=0.25)
    differences = first - second
    statistic = differences.mean() / (differences.std(ddof=1) * math.sqrt(1 / 5 + 1 / 4))
    found = compare_with_best(rows, ["nf_acc"])
    assert found[0]["nf_acc_p"] == pytest.approx(2 * stats.t.sf(abs(statistic), 4))
    assert found[0]["nf_acc_p"] > compare_with_best(over_seeds(list(first), list(second)), ["nf_acc"])[0]["nf_acc_p"]


def test_the_best_is_the_lowest_where_lower_is_better():
    rows = over_seeds([3.0, 3.1, 3.2], [2.0, 2.2, 2.1], name="bits_per_dim")
    assert "bits_per_dim_p" not in compare_with_best(rows, ["bits_per_dim"])[1]


@pytest.mark.parametrize("name", ["parameters", "hours", "seconds_per_epoch"])
def test_times_and_what_has_no_better_direction_are_not_compared(name):
    assert compare_with_best(over_seeds([1.0, 2.0], [3.0, 3.5], name=name), [name]) == [{}, {}]


def test_rows_on_other_images_are_not_compared():
    rows = over_seeds([90.0, 91.0]) + over_seeds([80.0, 81.5], dataset="cifar10")
    assert compare_with_best(rows, ["nf_acc"]) == [{}, {}]


def test_rows_without_two_common_seeds_are_not_compared():
    rows = [measured("digits", {"nf_acc": summary(values)}) for values in ({0: 90.0, 1: 91.0}, {1: 80.0, 2: 81.0}, {})]
    assert compare_with_best(rows, ["nf_acc"]) == [{}, {}, {}]


def test_the_adjustment_is_over_all_metrics_of_the_table():
    rng = np.random.default_rng(0)
    values = rng.normal(90, 1, (2, 3, 5))
    rows = [
        measured(
            "digits", {name: summary(dict(enumerate(values[i, row]))) for i, name in enumerate(("nf_acc", "cnn_acc"))}
        )
        for row in range(3)
    ]
    both, one = compare_with_best(rows, ["nf_acc", "cnn_acc"]), compare_with_best(rows, ["nf_acc"])
    assert all(b.get("nf_acc_p", 1.0) >= o.get("nf_acc_p", 0.0) for b, o in zip(both, one, strict=True))
    assert both != one


def test_equal_rows_seem_to_differ_in_few_tables_although_the_best_is_chosen():
    rng, tables, alarms = np.random.default_rng(0), 300, 0
    for _ in range(tables):
        found = compare_with_best(over_seeds(*rng.normal(90, 1, (4, 6)).tolist()), ["nf_acc"])
        alarms += any(cells.get("nf_acc_p", 1.0) < 0.05 for cells in found)
    assert alarms / tables < 0.06


# ---- one seed: the same test images --------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "results/demo"


@pytest.fixture
def predict(root: Path) -> Callable[..., float]:
    """Leave predictions of a run of which `wrong` are wrong; returns the accuracy."""

    def leave(run: Run, wrong: slice, labels: torch.Tensor = LABELS) -> float:
        predicted = labels.clone()
        predicted[wrong] = (labels[wrong] + 1) % 4
        log_prob = torch.nn.functional.one_hot(predicted, 4).float()
        (root / run.folder).mkdir(parents=True, exist_ok=True)
        write_predictions(root / run.folder / "predictions.npz", labels, log_prob)
        return 100 * float((predicted == labels).float().mean())

    return leave


RUNS = [Run(dataset="digits", flow="mef", prior="fpi", weight=float(weight), seed=0) for weight in (1, 2, 3)]
EXPERIMENT = {"dataset": "digits", "lambdas": [1, 2, 3], "classifier": None}


@pytest.fixture
def table_of(make_metric_rows, make_frame, reference, make_rows) -> Callable[..., pd.DataFrame]:
    def make(accuracies: list[float], root: Path | None, **settings: object) -> pd.DataFrame:
        runs = [make_metric_rows(run, nf_acc=value, ece=5.0) for run, value in zip(RUNS, accuracies, strict=False)]
        table = TableSettings.model_validate({"metrics": ["nf_acc"]} | settings)
        return accuracy_table(
            make_frame(*runs),
            table,
            reference,
            make_rows(EXPERIMENT),
            partial(find_predictions, root) if root else lambda run: None,
        )

    return make


def test_runs_of_one_seed_are_compared_image_by_image(table_of, predict, root):
    # 4 wrong; 4 others; 40, of which 4 are those of the best
    wrong = [slice(0, 4), slice(4, 9), slice(0, 40)]
    table = table_of([predict(run, part) for run, part in zip(RUNS, wrong, strict=True)], root)
    p_values = [stats.binomtest(4, 9).pvalue, stats.binomtest(0, 36).pvalue, stats.binomtest(0, 35).pvalue]
    expected = holm(p_values)  # 0–1, 0–2, 1–2
    assert table["nf_acc_test"].tolist() == ["McNemar"] * 3
    assert math.isnan(table.loc[0, "nf_acc_p"])
    assert table["nf_acc_p"].tolist()[1:] == pytest.approx(expected[:2])


@pytest.mark.parametrize("keep", [True, False], ids=["one is missing", "no folder is named"])
def test_without_predictions_nothing_is_compared(table_of, predict, root, keep):
    accuracies = [predict(run, slice(0, 4)) for run in RUNS[:1]] + [95.0, 90.0]
    table = table_of(accuracies, root if keep else None)
    assert set(table["nf_acc_test"]) == {NO_PREDICTIONS}
    assert table["nf_acc_p"].isna().all()


def test_runs_on_other_test_images_are_refused(table_of, predict, root):
    accuracies = [predict(run, slice(0, 4)) for run in RUNS[:2]]
    accuracies.append(predict(RUNS[2], slice(0, 4), labels=LABELS.flip(0)))
    with pytest.raises(TableError, match=r"lambda=1/seed=0, .*lambda=3/seed=0: .* the same test images"):
        table_of(accuracies, root)


def test_a_run_that_diverged_is_not_compared(make_metric_rows, make_frame, reference, make_rows, predict, root):
    accuracies = [predict(run, slice(0, 4)) for run in RUNS[:2]]
    runs = [make_metric_rows(run, nf_acc=value) for run, value in zip(RUNS, accuracies, strict=False)]
    frame = make_frame(*runs, make_metric_rows(RUNS[2], "diverged: loss of the flow at step 4"))
    table = accuracy_table(
        frame, TableSettings(metrics=["nf_acc"]), reference, make_rows(EXPERIMENT), partial(find_predictions, root)
    )
    assert table["nf_acc_test"].tolist() == ["McNemar", "McNemar", ""]
    assert json.loads(table.to_json())["nf_acc_p"]["1"] == 1.0
