"""Main results at the head of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from nfpi.config.metrics import metric
from nfpi.page.products import Product
from nfpi.results.recorded.runs import RecordedRun
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.results.tables.summaries import choose_best_run, find_selecting_metric
from nfpi.results.tables.table import count_decimals, format_number, typeset_weight
from nfpi.runs import BASELINE, Run


@dataclass(frozen=True)
class Headline:
    """One result.

    Attributes:
        metric: name of the metric.
        label: label of the metric, with the data set.
        value: value with its unit.
        of: description of its runs.
        notes: interval, baseline and the paper's number.
    """

    metric: str
    label: str
    value: str
    of: str
    notes: list[str]


def select_headlines(recorded: Sequence[RecordedRun], tables: Sequence[Product]) -> list[Headline]:
    """Select the main results of each data set.

    These are the accuracies of the best flow, of the classifiers trained on its samples, and of the best classifier
    trained on real images; the best are chosen on the validation split as in tables
    (:func:`nfpi.results.tables.summaries.choose_best`).
    """
    shown: list[Headline] = []
    for dataset in dict.fromkeys(item.run.dataset for item in recorded):
        of_dataset = [item for item in recorded if item.run.dataset == dataset]
        groups: Groups = {}
        for item in of_dataset:
            if item.metrics:
                groups.setdefault(replace(item.run, seed=0), []).append(item)
        diverged = Counter(replace(item.run, seed=0) for item in of_dataset if item.divergence)
        flow, of_real_images = (_find_best_run(groups, diverged, is_real) for is_real in (False, True))
        best = [("nf_acc", flow)]
        best += [
            ("cnn_acc", run) for run in groups if run.classifier and run.augmentation is None and run.of_flow == flow
        ]
        best += [("top1", of_real_images)]
        shown += [
            _make_headline(name, run, groups, tables)
            for name, run in best
            if run is not None and _list_values(groups[run], name)
        ]
    return shown


Groups = dict[Run, list[RecordedRun]]
"""Runs with metrics that differ only in the seed, keyed by the run with seed 0."""


def _list_values(members: Iterable[RecordedRun], name: str) -> list[float]:
    return [item.metrics[name] for item in members if name in item.metrics]


def _find_best_run(groups: Groups, diverged: Mapping[Run, int], is_trained_on_real_images: bool) -> Run | None:
    """Return the run that is best by the metric that selects λ; None: no run has it."""
    name = find_selecting_metric(None, is_trained_on_real_images=is_trained_on_real_images)
    return choose_best_run({run: _list_values(members, name) for run, members in groups.items()}, diverged, name)


def _make_headline(name: str, run: Run, groups: Groups, tables: Sequence[Product]) -> Headline:
    entry, values = metric(name), _list_values(groups[run], name)
    mean = fmean(values)
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
    if other is not None and _list_values(groups[other], name):
        notes.append(f"{label}: {format_number(fmean(_list_values(groups[other], name)), decimals)} {entry.unit}")
    value = _find_paper_value(name, run, tables)
    if value is not None:
        difference = format_number(mean - value, decimals, signed=True)
        notes.append(f"the paper: {value:g} {entry.unit} (difference {difference})")
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
        parts = [f"flow {run.flow}", f"prior {run.prior}", f"λ = {typeset_weight(run.weight)}"]
    if run.classifier:
        parts.append(f"classifier {run.classifier}")
    if run.augmentation:
        parts.append(f"augmentation {run.augmentation}")
    return ", ".join(parts)


def _find_paper_value(name: str, run: Run, tables: Sequence[Product]) -> float | None:
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
    for frame in (table.frame for table in tables):
        if frame is None or f"paper_{name}" not in frame:
            continue
        same = (frame[keys] == [row[key] for key in keys]).all(axis=1) & frame[f"paper_{name}"].notna()
        if run.weight is not None:
            same &= frame["lambda"].fillna(0.0) == run.weight  # tables show no λ of a prior without one
        if same.any():
            return float(frame.loc[same, f"paper_{name}"].iloc[0])
    return None
