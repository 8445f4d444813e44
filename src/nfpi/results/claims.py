"""Comparisons of rows of tables, and what they say of the paper's claims (:mod:`nfpi.results.verdicts`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from nfpi.config.claims import DIVERGENCE, Claim, ClaimComparison, ComparedRow, name_of
from nfpi.config.experiments import TableSettings
from nfpi.config.metrics import ACCURACIES, METRICS, metric
from nfpi.results.predictions import Predictions
from nfpi.results.rows import TableRow
from nfpi.results.significance import Comparison, bootstrap, holm, mcnemar, paired_t, seeds_needed
from nfpi.results.tables import TableError, accuracy_table, split_by_outcome, values_over_seeds
from nfpi.results.verdicts import (
    LEVEL,
    Verdict,
    judge_claim,
    judge_difference,
    judge_non_inferiority,
    judge_with_diverged,
)
from nfpi.runs import Run

COLUMNS = {
    "claim": "str",
    "number": "int64",
    "statement": "str",
    "paper": "str",
    "claim_verdict": "str",
    "dataset": "str",
    "metric": "str",
    "first": "str",
    "first_lambda": "float64",
    "first_value": "float64",
    "second": "str",
    "second_lambda": "float64",
    "second_value": "float64",
    "direction": "str",
    "smallest_effect": "float64",
    "test": "str",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "std": "float64",
    "p_value": "float64",
    "p_adjusted": "float64",
    "seeds": "int64",
    "planned_seeds": "int64",
    "first_diverged": "int64",
    "second_diverged": "int64",
    "paper_difference": "float64",
    "verdict": "str",
    "seeds_needed": "Int64",
}
"""Columns of the verdicts, a row a comparison, with their types.

`difference` is first − second over the `seeds` that both rows have, of `planned_seeds`, in the metric's unit; values
are means over these seeds. `p_adjusted` is Holm's over the claim. `seeds_needed` is known where the verdict is
inconclusive.
"""


@dataclass(frozen=True)
class Evidence:
    """What claims are judged by.

    Attributes:
        metrics: what :func:`nfpi.results.collect.collect` returns, of the runs that there are.
        tables: settings of the tables, by name.
        rows: rows of these tables, at least those that the claims name.
        reference: the paper's numbers (:func:`nfpi.results.tables.read_reference`).
        predictions: reads those of a run.
    """

    metrics: pd.DataFrame
    tables: Mapping[str, TableSettings]
    rows: Mapping[str, Sequence[TableRow]]
    reference: pd.DataFrame
    predictions: Callable[[Run], Predictions]
    _made: dict[tuple[str, str], pd.DataFrame] = field(default_factory=dict, repr=False)

    def table(self, name: str, shown: str) -> pd.DataFrame:
        """A table with one metric and all λ, its lines in the order of its rows."""
        if (name, shown) not in self._made:
            changes = {"metrics": [shown], "best_only": False, "literature": []}
            settings = self.tables[name].model_copy(update=changes)
            self._made[name, shown] = accuracy_table(self.metrics, settings, self.reference, self.rows[name])
        return self._made[name, shown]


@dataclass(frozen=True)
class _Side:
    """One side of a comparison: values by seed, seeds that diverged, and what the paper has."""

    name: str
    weight: float = math.nan
    values: Mapping[int, float] = field(default_factory=dict)
    diverged: frozenset[int] = frozenset()
    paper: float = math.nan
    row: TableRow | None = None
    constant: float | None = None

    @property
    def ran(self) -> set[int]:
        return self.values.keys() | self.diverged

    @property
    def planned(self) -> int:
        """How many seeds the preset has."""
        return len({run.seed for run in self.row.runs}) if self.row is not None else 0


def judge_claims(claims: Mapping[str, Claim], evidence: Evidence) -> pd.DataFrame:
    """Judge all claims.

    Returns:
        a row for each comparison, with the columns :data:`COLUMNS`, in the order in which claims are shown.

    Raises:
        TableError: a row that a claim names is not there, two values stand for one cell, or the predictions of two
            runs are of different images.
        MetricsError: predictions cannot be read.
    """
    ordered = sorted(claims.items(), key=lambda item: (item[1].number or math.inf, item[0]))
    rows = [row for name, claim in ordered for row in _judge(name, claim, evidence)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _judge(name: str, claim: Claim, evidence: Evidence) -> list[dict[str, Any]]:
    sides = [
        (_side(comparison.first, comparison.metric, evidence), _side(comparison.second, comparison.metric, evidence))
        for comparison in claim.comparisons
    ]
    found = [_compare(*pair, part, evidence) for pair, part in zip(sides, claim.comparisons, strict=True)]
    tested = [
        math.nan if part.direction == "not_less" else result.p_value
        for result, part in zip(found, claim.comparisons, strict=True)
    ]
    adjusted, family = holm(tested), max(1, sum(not math.isnan(p_value) for p_value in tested))
    rows = [
        _row(*pair, part, result, p_value, family)
        for pair, part, result, p_value in zip(sides, claim.comparisons, found, adjusted, strict=True)
    ]
    common = {"claim": name, "number": claim.number, "statement": claim.statement, "paper": claim.paper}
    verdict = judge_claim([row["verdict"] for row in rows])
    return [common | {"claim_verdict": verdict} | row for row in rows]


def _row(
    first: _Side, second: _Side, comparison: ClaimComparison, result: Comparison, p_adjusted: float, family: int
) -> dict[str, Any]:
    """One line of the verdicts."""
    pairs = _pairs(first, second)
    if result.test == "McNemar" and comparison.metric != DIVERGENCE:
        pairs = pairs[:1]  # the seed whose images are compared
    verdict = _verdict(first, second, comparison, result, p_adjusted)
    paper = comparison.paper_difference
    return {
        "dataset": first.row.dataset if first.row is not None else "",
        "metric": comparison.metric,
        "first": first.name,
        "first_lambda": first.weight,
        "first_value": _mean(first, pairs),
        "second": second.name,
        "second_lambda": second.weight,
        "second_value": _mean(second, pairs),
        "direction": comparison.direction,
        "smallest_effect": comparison.smallest_effect,
        "test": result.test,
        "difference": result.difference,
        "low": result.low,
        "high": result.high,
        "std": result.std,
        "p_value": result.p_value,
        "p_adjusted": p_adjusted,
        "seeds": result.seeds if pairs else 0,
        "planned_seeds": first.planned,
        "first_diverged": len(first.diverged),
        "second_diverged": len(second.diverged),
        "paper_difference": first.paper - second.paper if paper is None else paper,
        "verdict": verdict,
        "seeds_needed": _seeds_needed(comparison, result, family) if verdict == "inconclusive" else None,
    }


# ---- the two sides ------------------------------------------------------------------------------------------


def _side(asked: ComparedRow, name: str, evidence: Evidence) -> _Side:
    """The values of one side, at its λ."""
    if asked.table is None:
        assert asked.value is not None
        return _Side("", constant=asked.value)
    frame, rows = evidence.table(asked.table, name), list(evidence.rows[asked.table])
    try:
        experiment = asked.index_in({row.experiment: row for row in rows})
    except ValueError as error:
        raise TableError(str(error)) from None
    candidates = [(row, line) for row, line in zip(rows, frame.to_dict("records"), strict=True)]
    candidates = [pair for pair in candidates if pair[0].experiment == experiment]
    chosen = _choose(asked, name, candidates, evidence)
    label = name_of(candidates[0][0])
    if chosen is None:
        return _Side(label, row=candidates[0][0])
    row, line = chosen
    measured, diverged, finished = split_by_outcome(evidence.metrics, row)
    seeds_diverged = frozenset(int(seed) for seed in diverged["seed"])
    if name == DIVERGENCE:
        values = {int(seed): 100.0 * (seed in seeds_diverged) for seed in measured["seed"].unique()}
    else:
        of_metric = values_over_seeds(finished, name)
        values = {int(seed): float(value) for seed, value in zip(of_metric["seed"], of_metric["value"], strict=True)}
    weight = row.weight if row.weight is not None and len(candidates) > 1 else math.nan
    return _Side(label, weight, values, seeds_diverged, float(line[f"paper_{name}"]), row)


def _choose(
    asked: ComparedRow, name: str, candidates: list[tuple[TableRow, dict[Any, Any]]], evidence: Evidence
) -> tuple[TableRow, dict[Any, Any]] | None:
    """The row at the λ that is asked for; None: no run is there that λ could be chosen by.

    Where every run diverged at every λ, the choice does not matter: it is the smallest.
    """
    by_weight = sorted(candidates, key=lambda pair: pair[0].weight or 0.0)
    if asked.weight == "min":
        return by_weight[0]
    if asked.weight == "max":
        return by_weight[-1]
    if asked.weight == "best":
        best = next((pair for pair in candidates if pair[1]["best"]), None)
        return best or (by_weight[0] if len(by_weight) == 1 else _first_of_diverged(by_weight, evidence))
    if asked.weight == "inner_best":
        inner = by_weight[1:-1]
        scored = [(_validation(*pair, name, evidence), pair) for pair in inner]
        known = [(score, pair) for score, pair in scored if not math.isnan(score)]
        # As in tables: the mean of a λ that diverged in most of its seeds is that of the lucky ones.
        steady = [(score, pair) for score, pair in known if _diverged_share(pair[0], evidence) <= 0.5] or known
        return max(steady, key=lambda pair: pair[0])[1] if steady else _first_of_diverged(inner, evidence)
    return next((pair for pair in by_weight if (pair[0].weight or 0.0) == asked.weight), None)


def _first_of_diverged(
    candidates: list[tuple[TableRow, dict[Any, Any]]], evidence: Evidence
) -> tuple[TableRow, dict[Any, Any]] | None:
    """The first of the rows where all of them diverged in every seed; None: some run did not, or none is there."""
    return candidates[0] if all(_diverged_share(row, evidence) == 1 for row, _ in candidates) else None


def _diverged_share(row: TableRow, evidence: Evidence) -> float:
    """Of the seeds of which there is a run; 0 without any."""
    measured, diverged, _ = split_by_outcome(evidence.metrics, row)
    return len(diverged) / max(1, measured["seed"].nunique())


def _validation(row: TableRow, line: dict[Any, Any], name: str, evidence: Evidence) -> float:
    """What an inner λ is chosen by, the larger the better: the metric on the validation split, else the table's."""
    on_validation = f"validation_{name}"
    chosen_by, mean = line["chosen_by"], float(line["validation"])
    if on_validation in METRICS:
        _, _, finished = split_by_outcome(evidence.metrics, row)
        chosen_by, mean = on_validation, float(values_over_seeds(finished, on_validation)["value"].mean())
    return -mean if metric(chosen_by).higher_is_better is False else mean


def _pairs(first: _Side, second: _Side) -> list[int]:
    """The seeds of which both sides have a value."""
    return sorted(first.values if second.constant is not None else first.values.keys() & second.values.keys())


def _mean(side: _Side, seeds: list[int]) -> float:
    if side.constant is not None:
        return side.constant
    return float(np.mean([side.values[seed] for seed in seeds])) if seeds else math.nan


# ---- the test and its verdict -------------------------------------------------------------------------------


def _compare(first: _Side, second: _Side, comparison: ClaimComparison, evidence: Evidence) -> Comparison:
    """The difference first − second by the test of the comparison."""
    seeds, test = _pairs(first, second), comparison.test_with(first.planned)
    if second.constant is not None:
        return paired_t(first.values, dict.fromkeys(first.values, second.constant))
    if test == "paired_t" or not seeds:
        return paired_t(first.values, second.values)
    if comparison.metric == DIVERGENCE:
        ours, theirs = (np.array([side.values[seed] > 0 for seed in seeds]) for side in (first, second))
        found = mcnemar(ours, theirs)
        return Comparison(found.difference, found.low, found.high, found.p_value, found.test, len(seeds), math.nan)
    if test == "mcnemar":
        ours, theirs, _ = _right(first, second, comparison.metric, seeds[0], evidence)
        return mcnemar(ours, theirs)
    right = [_right(first, second, comparison.metric, seed, evidence) for seed in seeds]
    same_images = all(np.array_equal(labels, right[0][2]) for _, _, labels in right)
    return bootstrap([ours for ours, _, _ in right], [theirs for _, theirs, _ in right], same_images=same_images)


def _right(
    first: _Side, second: _Side, name: str, seed: int, evidence: Evidence
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which test images each side classifies correctly, at one seed, and their labels."""
    runs = [_run_of(side, name, seed) for side in (first, second)]
    ours, theirs = (evidence.predictions(run) for run in runs)
    if not np.array_equal(ours.label, theirs.label):
        raise TableError(f"expected predictions of the same test images, received others: {', '.join(map(str, runs))}")
    return ours.predicted == ours.label, theirs.predicted == theirs.label, ours.label


def _run_of(side: _Side, name: str, seed: int) -> Run:
    assert side.row is not None
    runs = side.row.flow_runs if ACCURACIES[name] == "flow" else side.row.classifier_runs
    return next(run for run in runs if run.seed == seed)


def _verdict(
    first: _Side, second: _Side, comparison: ClaimComparison, result: Comparison, p_adjusted: float
) -> Verdict:
    """The verdict of one comparison."""
    sign = -1.0 if comparison.direction == "less" else 1.0
    low, high = sorted((sign * result.low, sign * result.high))
    if comparison.direction == "not_less":
        verdict = judge_non_inferiority(low, high, comparison.smallest_effect)
    else:
        verdict = judge_difference(sign * result.difference, low, high, p_adjusted, comparison.smallest_effect)
    ran = first.ran if second.constant is not None else first.ran & second.ran
    return judge_with_diverged(
        verdict,
        pairs=len(_pairs(first, second)),
        first_diverged=0 if comparison.metric == DIVERGENCE else len(first.diverged & ran),
        second_diverged=0 if comparison.metric == DIVERGENCE else len(second.diverged & ran),
        ran=len(ran),
    )


def _seeds_needed(comparison: ClaimComparison, result: Comparison, family: int) -> int | None:
    """The number of seeds that would decide, with a power of 80 %, at the standard deviation that was found.

    Decided is what differs from zero, or from the smallest effect that matters: a true difference between the two
    needs more seeds than either. Where every effect matters (0), it is the difference that was found.
    """
    smallest, level = comparison.smallest_effect, LEVEL / family
    if comparison.direction == "not_less" or math.isnan(result.difference):
        needed = seeds_needed(result.std, smallest, level=level)
    else:
        difference = -result.difference if comparison.direction == "less" else result.difference
        to_tell = min(smallest or math.inf, max(difference, smallest - difference))
        needed = seeds_needed(result.std, to_tell, level=level)
    return None if needed is None else max(needed, result.seeds + 1)
