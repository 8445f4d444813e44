"""The main results of each data set, chosen and summarised as rows of tables are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from nfpi.config.metrics import metric
from nfpi.page.runs import compose_name
from nfpi.results.numbers import count_decimals, format_measurement, format_number
from nfpi.results.recorded.runs import RecordedRun, make_frame
from nfpi.results.tables.rows import TableRow
from nfpi.results.tables.summaries import MeasuredRow, mark_best, measure_row
from nfpi.runs import BASELINE, Run, name_refitted, split_refitted


@dataclass(frozen=True)
class Headline:
    """A metric of the best runs over their seeds, as text.

    Attributes:
        metric: name of the metric.
        label: label of the metric, with the data set.
        value: value with its unit.
        of: description of the runs.
        notes: interval, baseline and the paper's number.
    """

    metric: str
    label: str
    value: str
    of: str
    notes: list[str]


def show_headlines(recorded: Sequence[RecordedRun], tables: Sequence[pd.DataFrame]) -> list[Headline]:
    """Return the main results of each data set.

    These are the accuracies of the best flow, of the classifiers trained on its samples, and of the best classifier
    trained on real images; the best are chosen on the validation split as in tables
    (:func:`nfpi.results.tables.summaries.mark_best`).

    Args:
        recorded: the runs.
        tables: tables with the paper's values (:func:`nfpi.results.tables.building.accuracy_table`).
    """
    runs = _MeasuredRuns.of(recorded)
    best = [item for dataset in dict.fromkeys(run.dataset for run in runs.groups) for item in runs.list_best(dataset)]
    return [_make_headline(name, run, runs, tables) for name, run in best if runs.has_value(run, name)]


def _make_headline(name: str, run: Run, runs: _MeasuredRuns, tables: Sequence[pd.DataFrame]) -> Headline:
    entry, measured = metric(name), runs.measure(run, name)
    summary, images = measured.summaries[name], measured.images
    decimals = count_decimals(entry, images and images * (summary.count or 1))
    low, high = (format_number(bound, decimals) for bound in summary.interval)
    notes = []
    if len(summary.values) > 1:
        of = "draws" if summary.is_imported else "seeds"
        notes.append(f"mean of {len(summary.values)} {of}, standard deviation {summary.std:.{decimals}f}")
    elif low:
        notes.append(f"95 % interval {low} to {high}" + (f" ({images} test images)" if images else ""))
    other, label = _find_baseline(run)
    baseline = math.nan if other == run else runs.measure(other, name).summaries[name].mean
    if not math.isnan(baseline):
        notes.append(f"{label}: {format_number(baseline, decimals)} {entry.unit}")
    paper = _find_paper_value(name, run, tables)
    if not math.isnan(paper):
        difference = format_number(summary.mean - paper, decimals, signed=True)
        notes.append(f"the paper: {paper:g} {entry.unit} (difference {difference})")
    if measured.validation.count:
        chooser = metric(measured.chosen_by)
        on_samples = run.classifier is not None and run.augmentation is None
        how = "on images of the best flow; " if on_samples else "chosen by "
        notes.append(f"{how}{chooser.label}: {format_measurement(measured.validation.mean, chooser)}")
    value = f"{format_number(summary.mean, decimals)} {entry.unit}"
    return Headline(name, f"{entry.label} on {run.dataset}", value, compose_name(run), notes)


@dataclass(frozen=True)
class _MeasuredRuns:
    """Runs with their metrics.

    Attributes:
        metrics: metrics of all runs (:func:`nfpi.results.recorded.runs.make_frame`).
        groups: runs that differ only in the seed, by the run with seed 0.
    """

    metrics: pd.DataFrame
    groups: dict[Run, list[Run]]

    @classmethod
    def of(cls, recorded: Sequence[RecordedRun]) -> _MeasuredRuns:
        """Bring the runs together whose metrics or divergence are known."""
        records = {item.run: item.record for item in recorded if item.record}
        groups: dict[Run, list[Run]] = {}
        for run in records:
            groups.setdefault(replace(run, seed=0), []).append(run)
        return cls(make_frame(records), groups)

    def measure(self, run: Run, name: str) -> MeasuredRow:
        """Summarise a metric over the seeds of a run, as the row of a table does."""
        runs = self.groups.get(run, [run])
        identity: dict[str, Any] = {"dataset": run.dataset, "lambda": run.weight}
        of_flow = tuple(each.of_flow for each in runs if run.augmentation is None)
        of_classifier = tuple(each for each in runs if run.classifier is not None)
        row = TableRow(experiment=0, **identity, flow_runs=of_flow, classifier_runs=of_classifier)
        return measure_row(self.metrics, row, [name], best_by=name)

    def has_value(self, run: Run, name: str) -> bool:
        """Return whether some seed of a run has a metric."""
        return self.measure(run, name).summaries[name].count is not None

    def list_best(self, dataset: str) -> Iterator[tuple[str, Run]]:
        """Yield the best runs on a data set, each with the metric that it is shown by."""
        groups = [run for run in self.groups if run.dataset == dataset]
        flow = self._find_best([run for run in groups if run.classifier is None], "nf_acc")
        if flow is not None:
            yield "nf_acc", flow
        of_samples = [run for run in groups if run.classifier is not None and run.augmentation is None]
        yield from (("cnn_acc", run) for run in of_samples if run.of_flow == flow)
        of_real_images = self._find_best([run for run in groups if run.augmentation is not None], "top1")
        if of_real_images is not None:
            yield "top1", of_real_images

    def _find_best(self, runs: Sequence[Run], name: str) -> Run | None:
        """Return the run that is best in a metric on the validation split; None: no run has it."""
        rows = [self.measure(run, name) for run in runs]
        mark_best(rows, must_have_values=False)
        return next((run for run, measured in zip(runs, rows, strict=True) if measured.is_best), None)


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


def _find_paper_value(name: str, run: Run, tables: Sequence[pd.DataFrame]) -> float:
    """Return the paper's value of a metric of this run, NaN if no table contains it.

    A baseline that several priors share (:data:`nfpi.runs.BASELINE`) has none: its row names the prior of the
    experiment, while the run names the baseline.
    """
    row = run.row()
    keys = ["dataset", "flow", "prior"]
    if run.classifier is not None:  # otherwise the row of a flow may also have a classifier
        keys.append("classifier")
    if run.augmentation is not None:  # tables show `standard` for generated images, whose runs have no augmentation
        keys.append("augmentation")
    for frame in (frame for frame in tables if f"paper_{name}" in frame):
        same = (frame[keys] == [row[key] for key in keys]).all(axis=1) & frame[f"paper_{name}"].notna()
        if run.weight is not None:
            same &= frame["lambda"].fillna(0.0) == run.weight  # tables show no λ of a prior without one
        if same.any():
            return float(frame.loc[same, f"paper_{name}"].iloc[0])
    return math.nan
