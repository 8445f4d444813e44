"""Tables, settings and versions of the runs on a page, and explanations of metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nfpi.config.metrics import METRICS, find_metric, metric
from nfpi.page.runs import ShownRun
from nfpi.results.numbers import count_decimals, typeset_weight
from nfpi.results.recorded.runs import MISMATCH_ADVICE, RecordedRun
from nfpi.results.tables.markup import Column, TextTable, make_number_column, make_text_column

METRICS_OF_FLOWS = ("nf_acc", "bits_per_dim", "ece", "worst_class_acc", "parameters", "hours")
METRICS_OF_CLASSIFIERS = ("top1", "real_acc", "top5", "real_top1", "real_top5", "ece", "worst_class_acc")
"""Metrics of the overviews, in order."""
WEIGHT = (
    "λ: weight of the repulsion between classes; at 0 (baseline) there is none, and Gaussians keep their initial "
    "values unless they are learned with the flow."
)
"""Explanation of λ."""


def explain_metrics(names: Iterable[str]) -> list[str]:
    """Return a sentence for each of these metrics that has a meaning, in the order of the registry."""
    wanted = set(names)
    metrics = [metric(name) for name in METRICS if name in wanted]
    return [f"{each.label}: {each.meaning}." for each in metrics if each.meaning]


def lay_out_overviews(runs: Sequence[ShownRun]) -> list[tuple[str, str, TextTable]]:
    """Lay out the tables of flows and of classifiers trained on real images, each with its id and title."""
    flows = [run for run in runs if run.recorded.run.classifier is None]
    everything = [run for flow in runs for run in flow.with_classifiers]
    of_real_images = [run for run in everything if run.recorded.run.augmentation is not None]
    classifiers = [run for run in of_real_images if not run.recorded.run.measures_samples]
    overviews = (
        ("flows", "Flows", flows, METRICS_OF_FLOWS),
        ("classifiers", "Classifiers trained on real images", classifiers, METRICS_OF_CLASSIFIERS),
    )
    return [
        (id, f"{title}, measured on the test split", lay_out_overview(members, metrics))
        for id, title, members, metrics in overviews
        if members
    ]


def lay_out_overview(runs: Sequence[ShownRun], metrics: Sequence[str]) -> TextTable:
    """Lay out a table of runs with links to their sections.

    Args:
        runs: runs of flows, or of classifiers trained on real images.
        metrics: metrics to show, except for those that no run has.
    """
    identities = [run.recorded.run for run in runs]
    weights = [run.weight for run in identities]
    columns = [
        make_text_column(name.capitalize(), [getattr(run, name) for run in identities])
        for name in ("classifier", "augmentation", "flow", "prior")
    ]
    columns.append(make_number_column("λ", weights, typeset_weight))
    if len({run.dataset for run in identities}) > 1:
        columns.append(make_text_column("Data set", [run.dataset for run in identities]))
    if len({run.seed for run in identities}) > 1:
        columns.append(make_number_column("Seed", [run.seed for run in identities], 0))
    for name in metrics:
        columns.append(_make_metric_column(name, [run.recorded for run in runs]))
        if name == "nf_acc":
            columns += _make_classifier_columns(runs)
    columns.append(make_text_column("Status", [_describe_state(run.recorded) for run in runs]))
    first, *others = (column for column in columns if any(column.cells))
    shown = [part for run in runs for part in (run, *run.classifiers_of_generated_images)]
    notes = [WEIGHT] if any(weight is not None for weight in weights) else []
    notes += explain_metrics(name for part in shown for name in part.recorded.metrics)
    notes += [MISMATCH_ADVICE] if any(run.recorded.mismatch for run in runs) else []
    return TextTable([replace(first, links=[f"#{run.id}" for run in runs]), *others], [False] * len(runs), notes)


def _describe_state(item: RecordedRun) -> str:
    """Return how a run ended, and whether it is outdated or does not follow its prior; empty if all is well."""
    return ", ".join(filter(None, [item.failure, "outdated" if item.is_outdated else "", item.mismatch]))


def _make_classifier_columns(runs: Sequence[ShownRun]) -> Iterator[Column]:
    """Yield a column of CNN-Acc for each classifier trained on generated images."""
    by_name = [
        {item.recorded.run.classifier: item.recorded for item in run.classifiers_of_generated_images} for run in runs
    ]
    names = dict.fromkeys(name for classifiers in by_name for name in classifiers)
    for name in names:
        column = _make_metric_column("cnn_acc", [classifiers.get(name) for classifiers in by_name])
        yield column if len(names) == 1 else replace(column, heading=f"{column.heading}, {name}")


def _make_metric_column(name: str, recorded: Sequence[RecordedRun | None]) -> Column:
    """Make the column of a metric; None: a row without such a run."""
    entry = find_metric(name)
    known = [(item.metrics.get(name), item.record.get("n")) if item is not None else (None, None) for item in recorded]
    cells = ["" if value is None else f"{value:.{count_decimals(entry, images)}f}" for value, images in known]
    return make_number_column(entry.label, [value for value, _ in known], cells, unit=entry.unit)


# ---- settings and versions ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingsOfKind:
    """Settings of all runs of one kind.

    Attributes:
        kind: name of the kind: data set and flow, or data set and classifier.
        runs: number of runs.
        shared: settings that are equal in all runs, with their values.
        differing: names of the other settings.
    """

    kind: str
    runs: int
    shared: list[tuple[str, str]]
    differing: list[str]


def compare_settings(recorded: Sequence[RecordedRun]) -> list[SettingsOfKind]:
    """Compare the settings of the runs of each kind, flows first."""
    kinds: dict[str, list[RecordedRun]] = {}
    for item in sorted(recorded, key=lambda item: item.run.classifier is not None):
        if item.settings:
            kinds.setdefault(_describe_kind(item), []).append(item)
    compared = []
    for kind, members in kinds.items():
        names = dict.fromkeys(name for item in members for name in item.settings)
        values = {name: {item.settings.get(name) for item in members} for name in names}
        shared = [(name, str(*texts)) for name, texts in values.items() if len(texts) == 1]
        compared.append(SettingsOfKind(kind, len(members), shared, [name for name in names if len(values[name]) > 1]))
    return compared


def add_differing_settings(runs: Iterable[ShownRun], kinds: Sequence[SettingsOfKind]) -> None:
    """Add to each run the settings in which it differs from others of its kind."""
    differing = {kind.kind: kind.differing for kind in kinds}
    for run in runs:
        names = differing.get(_describe_kind(run.recorded), ())
        run.settings += [(name, value) for name, value in run.recorded.settings.items() if name in names]


def list_versions(recorded: Sequence[RecordedRun]) -> list[tuple[str, str]]:
    """Return the package versions, commits and devices of all runs, by name."""
    values: dict[str, dict[str, None]] = {}
    for item in recorded:
        for name, value in item.software.items():
            values.setdefault(name, {})[value] = None
    return [(name, ", ".join(texts)) for name, texts in values.items()]


def _describe_kind(recorded: RecordedRun) -> str:
    run = recorded.run
    return f"{run.dataset}, classifier {run.classifier}" if run.classifier else f"{run.dataset}, flow {run.flow}"
