"""Main results at the head of a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from nfpi.config.metrics import metric
from nfpi.page.products import Product
from nfpi.page.runs import compose_name
from nfpi.results.numbers import count_decimals, format_measurement, format_number
from nfpi.results.recorded.runs import RecordedRun
from nfpi.results.statistics.intervals import wilson_interval
from nfpi.results.tables.summaries import choose_best, find_selecting_metric
from nfpi.runs import BASELINE, Run, name_refitted, split_refitted


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
        groups: Groups = {}
        diverged: Counter[Run] = Counter()
        for item in (item for item in recorded if item.run.dataset == dataset):
            if item.metrics:
                groups.setdefault(replace(item.run, seed=0), []).append(item)
            diverged[replace(item.run, seed=0)] += bool(item.divergence)
        flow, of_real_images = (_find_best_run(groups, diverged, name) for name in ("nf_acc", "top1"))
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


def _find_best_run(groups: Groups, diverged: Counter[Run], name: str) -> Run | None:
    """Return the run that is best in a metric on the validation split; None: no run has it."""
    chosen_by = find_selecting_metric(name)
    values = {run: _list_values(members, chosen_by) for run, members in groups.items()}
    means = {run: fmean(of_seeds) for run, of_seeds in values.items() if of_seeds}
    return choose_best(means, {run for run in means if diverged[run] > len(values[run])}, chosen_by)


def _make_headline(name: str, run: Run, groups: Groups, tables: Sequence[Product]) -> Headline:
    entry, values = metric(name), _list_values(groups[run], name)
    mean = fmean(values)
    images = groups[run][0].record.get("n") or None
    decimals = count_decimals(entry, images and images * len(values))
    notes = []
    if len(values) > 1:
        notes.append(f"mean of {len(values)} seeds, standard deviation {stdev(values):.{decimals}f}")
    elif images:
        low, high = wilson_interval(mean, images)
        notes.append(f"95 % interval {low:.{decimals}f} to {high:.{decimals}f} ({images} test images)")
    other, label = _find_baseline(run)
    if other != run and (of_other := _list_values(groups.get(other, ()), name)):
        notes.append(f"{label}: {format_number(fmean(of_other), decimals)} {entry.unit}")
    value = _find_paper_value(name, run, tables)
    if value is not None:
        difference = format_number(mean - value, decimals, signed=True)
        notes.append(f"the paper: {value:g} {entry.unit} (difference {difference})")
    chooser = metric(find_selecting_metric(name))
    if validation := _list_values(groups[run], chooser.name):
        notes.append(f"chosen by {chooser.label}: {format_measurement(fmean(validation), chooser)}")
    label, shown = f"{entry.label} on {run.dataset}", f"{format_number(mean, decimals)} {entry.unit}"
    return Headline(name, label, shown, compose_name(run), notes)


def _find_baseline(run: Run) -> tuple[Run, str]:
    """Return the baseline of a run, which may be the run itself, and the label of the baseline.

    It is the data-initialised run at λ = 0, with Gaussians that are estimated again if the run's are, or, for a run
    with an augmentation, the one without.
    """
    if run.augmentation is not None:
        other = Run(dataset=run.dataset, seed=0, classifier=run.classifier, augmentation="none")
        return other, "without augmentation"
    prior, refit = split_refitted(run.prior or "")
    if prior in BASELINE.values():
        return run, ""
    baseline = replace(run, prior=name_refitted(BASELINE["data"], refit), weight=0.0)
    return baseline, "λ = 0" if run.weight else "data-initialised, λ = 0"


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
