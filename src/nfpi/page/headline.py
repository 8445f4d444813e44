"""Main results at the head of a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from statistics import fmean, stdev

import pandas as pd

from nfpi.config.metrics import metric
from nfpi.page.tables import ShownTable
from nfpi.results.markup.html import HTML
from nfpi.results.recorded.runs import RecordedRun
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.results.tables.layout import count_decimals, format_number, typeset_weight
from nfpi.results.tables.summaries import Score, choose_best
from nfpi.runs import BASELINE, Run


@dataclass(frozen=True)
class Headline:
    """One result.

    Attributes:
        metric: name of the metric.
        label: label of the metric, with the data set.
        value: value with its unit.
        of: description of its runs, in HTML.
        notes: interval, baseline and the paper's number, in HTML.
    """

    metric: str
    label: str
    value: str
    of: str
    notes: list[str]


def select_headlines(recorded: Sequence[RecordedRun], tables: Sequence[ShownTable]) -> list[Headline]:
    """Select the main results of each data set.

    These are the accuracies of the best flow, of the classifiers trained on its samples, and of the best classifier
    trained on real images; the best are chosen on the validation split as in tables
    (:func:`nfpi.results.tables.summaries.choose_best`).
    """
    shown: list[Headline] = []
    for dataset in dict.fromkeys(item.run.dataset for item in recorded):
        of_dataset = [item for item in recorded if item.run.dataset == dataset]
        groups = _group_seeds(item for item in of_dataset if item.metrics)
        diverged = Counter(replace(item.run, seed=0) for item in of_dataset if item.divergence)
        flow = _find_best_run(groups, diverged, "validation_nf_acc")
        if flow is not None:
            shown.append(_make_headline("nf_acc", flow, groups, tables))
            learners = [run for run in groups if run.classifier and run.augmentation is None and run.of_flow == flow]
            shown += [
                _make_headline("cnn_acc", run, groups, tables)
                for run in learners
                if "cnn_acc" in groups[run][0].metrics
            ]
        of_real_images = _find_best_run(groups, diverged, "validation_top1")
        if of_real_images is not None:
            shown.append(_make_headline("top1", of_real_images, groups, tables))
    return shown


Groups = dict[Run, list[RecordedRun]]
"""Runs with metrics that differ only in the seed, keyed by the run with seed 0."""


def _group_seeds(recorded: Iterable[RecordedRun]) -> Groups:
    groups: Groups = {}
    for item in recorded:
        groups.setdefault(replace(item.run, seed=0), []).append(item)
    return groups


def _list_values(members: Iterable[RecordedRun], name: str) -> list[float]:
    return [item.metrics[name] for item in members if name in item.metrics]


def _compute_mean(members: Iterable[RecordedRun], name: str) -> float:
    return fmean(_list_values(members, name) or [math.nan])


def _find_best_run(groups: Groups, diverged: Mapping[Run, int], name: str) -> Run | None:
    """Return the run with the best mean of a validation metric, as :func:`choose_best` chooses; None: no run has it."""
    runs = list(groups)
    count = {run: diverged.get(run, 0) for run in runs}
    scores = [Score(_compute_mean(groups[run], name), count[run], count[run] + len(groups[run])) for run in runs]
    best = choose_best(scores, higher_is_better=metric(name).higher_is_better)
    return None if best is None else runs[best]


def _make_headline(name: str, run: Run, groups: Groups, tables: Sequence[ShownTable]) -> Headline:
    entry, values = metric(name), _list_values(groups[run], name)
    mean = _compute_mean(groups[run], name)
    images = groups[run][0].record.get("n")
    images = images if isinstance(images, int) and images > 0 else None
    decimals = count_decimals(entry, images and images * len(values))
    notes = []
    if len(values) > 1:
        notes.append(f"mean of {len(values)} seeds, standard deviation {stdev(values):.{decimals}f}")
    elif images:
        low, high = wilson_interval(mean, images)
        notes.append(f"95 % interval {low:.{decimals}f} to {high:.{decimals}f} ({images} test images)")
    other, label = _find_baseline(run, groups)
    if other is not None:
        notes.append(f"{label}: {format_number(_compute_mean(groups[other], name), decimals)} {escape(entry.unit)}")
    value = _find_paper_value(name, run, tables)
    if value is not None:
        difference = format_number(mean - value, decimals, signed=True)
        notes.append(f"the paper: {value:g} {escape(entry.unit)} (difference {difference})")
    return Headline(
        name,
        f"{entry.label} on {run.dataset}",
        f"{format_number(mean, decimals)} {entry.unit}",
        _describe_run(run),
        notes,
    )


def _find_baseline(run: Run, groups: Groups) -> tuple[Run | None, str]:
    """Return the baseline of a run, and the label of the baseline.

    It is the data-initialised run at λ = 0 or, for a run with an augmentation, the one without. It is None if the run
    itself is a baseline or without augmentation, or if the baseline has no metrics.
    """
    if run.augmentation is not None:
        other = Run(dataset=run.dataset, seed=0, classifier=run.classifier, augmentation="none")
        label, is_baseline = "without augmentation", run == other
    else:
        other = replace(run, prior=BASELINE["data"], weight=0.0)
        label = "λ = 0" if run.weight else "data-initialised, λ = 0"
        is_baseline = run.prior in BASELINE.values()
    return (None if is_baseline or other not in groups else other), label


def _describe_run(run: Run) -> str:
    parts = []
    if run.flow and run.prior and run.weight is not None:
        parts = [f"flow {escape(run.flow)}", f"prior {escape(run.prior)}", f"λ = {typeset_weight(run.weight, HTML)}"]
    if run.classifier:
        parts.append(f"classifier {escape(run.classifier)}")
    if run.augmentation:
        parts.append(f"augmentation {escape(run.augmentation)}")
    return ", ".join(parts)


def _find_paper_value(name: str, run: Run, tables: Sequence[ShownTable]) -> float | None:
    """Return the paper's value of a metric of this run; None: no table contains it.

    A baseline that several priors share (:data:`nfpi.runs.BASELINE`) has none: its row names the prior of the
    experiment, while the run names the baseline.
    """
    row = run.row()
    keys = ["dataset", "flow", "prior"]
    if run.classifier is not None:  # otherwise the row of a flow may also have a classifier
        keys.append("classifier")
    if run.augmentation is not None:  # tables show `standard` for generated images, whose runs have no augmentation
        keys.append("augmentation")
    for table in tables:
        frame = table.frame
        if frame is None or f"paper_{name}" not in frame:
            continue
        same = frame[frame[f"paper_{name}"].notna()]
        for key in keys:
            same = same[same[key] == row[key]]
        if run.weight is not None:
            same = same[same["lambda"].fillna(0.0) == run.weight]  # tables show no λ of a prior without one
        if not pd.Series(same[f"paper_{name}"]).empty:
            return float(same[f"paper_{name}"].iloc[0])
    return None
