"""The runs of a page, each with its curves, samples and predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

from nfpi.config import METRICS
from nfpi.data.store import META, read_image_set
from nfpi.figures.curves import CURVES, LOG
from nfpi.page.agreement import Agreement, read_agreement
from nfpi.page.meanings import WEIGHT, meanings
from nfpi.page.pictures import Picture, embed, generated_images
from nfpi.results.html import HTML
from nfpi.results.layout import Column, Table, decimals_of, measured, metric_or_name, write_weight
from nfpi.results.recorded import RecordedRun
from nfpi.runs import COMMON_SPLITS, SPLITS, SPLITS_OF_SEED, Run, format_weight
from nfpi.runtime.manifests import find_product

METRICS_OF_FLOWS = ("nf_acc", "bits_per_dim", "ece", "worst_class_acc", "parameters", "hours")
METRICS_OF_CLASSIFIERS = ("top1", "top5", "real_top1", "real_top5", "ece", "worst_class_acc")
"""Metrics of the overviews, in this order."""


@dataclass
class ShownRun:
    """A run.

    Attributes:
        id: of its place in the page.
        name: HTML; of a classifier only what its flow's does not say.
        recorded: its metrics.
        values: its metrics for people, with their labels.
        settings: those that other runs of its kind have otherwise.
        curves: of its training; of the classifier that was chosen, where there are several.
        samples: images that a flow generated.
        agreement: of its predictions.
        faults: a line for each file that is damaged.
        classifiers: those that learned from a flow, or were augmented by it.
    """

    id: str
    name: str
    recorded: RecordedRun
    values: list[tuple[str, str]]
    settings: list[tuple[str, str]] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    samples: list[Picture] = field(default_factory=list)
    agreement: Agreement | None = None
    faults: list[str] = field(default_factory=list)
    classifiers: list[ShownRun] = field(default_factory=list)

    @property
    def with_classifiers(self) -> list[ShownRun]:
        """The run itself, and its classifiers."""
        return [self, *self.classifiers]


def show_runs(
    root: Path, recorded: Sequence[RecordedRun], differing: Callable[[RecordedRun], list[tuple[str, str]]]
) -> list[ShownRun]:
    """Return the runs in their order; classifiers stand with the flow that they learned from.

    Args:
        root: folder of the results.
        recorded: all runs.
        differing: the settings of a run that others of its kind have otherwise.
    """
    flows: dict[Run, ShownRun] = {}
    shown: list[ShownRun] = []
    for number, item in enumerate(recorded, 1):
        of_flow = flows.get(item.run.of_flow) if item.run.classifier and item.run.flow else None
        name = _name(item.run, with_flow=of_flow is None)
        run = _show(root, item, f"run-{number}", name)
        run.settings.extend(differing(item))
        if item.run.classifier is None:
            flows[item.run] = run
        (shown if of_flow is None else of_flow.classifiers).append(run)
    return shown


def of_flows(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """Those of flows."""
    return [run for run in runs if run.recorded.run.classifier is None]


def of_real_images(runs: Sequence[ShownRun]) -> list[ShownRun]:
    """Classifiers of real images, with a flow's augmentation or without."""
    everything = [run for flow in runs for run in flow.with_classifiers]
    return [run for run in everything if run.recorded.run.augmentation is not None]


def overview(runs: Sequence[ShownRun], metrics: Sequence[str]) -> Table:
    """Return a table of runs, each a link to its place.

    Args:
        runs: of flows, or of classifiers of real images.
        metrics: that are shown; those that no run has are left out.
    """
    columns = [
        _identity("Classifier", runs, lambda run: run.classifier),
        _identity("Augmentation", runs, lambda run: run.augmentation),
        _identity("Flow", runs, lambda run: run.flow),
        _identity("Prior", runs, lambda run: run.prior),
        Column(
            "λ",
            ["" if weight is None else write_weight(weight, HTML) for weight in _weights(runs)],
            list(_weights(runs)),
            is_numeric=True,
        ),
    ]
    if len({run.recorded.run.dataset for run in runs}) > 1:
        columns.append(_identity("Data set", runs, lambda run: run.dataset))
    if len({run.recorded.run.seed for run in runs}) > 1:
        seeds = [run.recorded.run.seed for run in runs]
        columns.append(Column("Seed", [str(seed) for seed in seeds], [float(seed) for seed in seeds], is_numeric=True))
    for name in metrics:
        columns.append(_column_of(name, runs, [run.recorded for run in runs]))
        if name == "nf_acc":
            columns += _columns_of_classifiers(runs)
    states = [run.recorded.divergence or ("damaged" if run.recorded.fault else "") for run in runs]
    columns.append(Column("Status", [escape(state) for state in states], [state or None for state in states]))
    kept = [column for column in columns if any(column.cells)]
    links = [f'<a href="#{run.id}">{cell}</a>' for run, cell in zip(runs, kept[0].cells, strict=True)]
    with_classifiers = [part for run in runs for part in (run, *_of_generated(run))]
    notes = [WEIGHT] if any(_weights(runs)) else []
    notes += meanings(name for part in with_classifiers for name in part.recorded.metrics)
    return Table([replace(kept[0], cells=links), *kept[1:]], [False] * len(runs), notes)


def _weights(runs: Iterable[ShownRun]) -> list[float | None]:
    return [run.recorded.run.weight for run in runs]


def _identity(heading: str, runs: Iterable[ShownRun], of: Callable[[Run], str | None]) -> Column:
    """What runs are, as text."""
    texts = [of(run.recorded.run) for run in runs]
    return Column(heading, [escape(text or "") for text in texts], list(texts))


def _columns_of_classifiers(runs: Sequence[ShownRun]) -> Iterator[Column]:
    """Yield the accuracy of each classifier that learned from generated images."""
    by_name = [{item.recorded.run.classifier: item.recorded for item in _of_generated(run)} for run in runs]
    names = dict.fromkeys(name for classifiers in by_name for name in classifiers)
    for name in names:
        column = _column_of("cnn_acc", runs, [classifiers.get(name) for classifiers in by_name])
        yield column if len(names) == 1 else replace(column, heading=f"{column.heading}, {escape(str(name))}")


def _of_generated(run: ShownRun) -> list[ShownRun]:
    """Return the classifiers of images that a flow generated."""
    return [item for item in run.classifiers if item.recorded.run.augmentation is None]


def _column_of(name: str, runs: Sequence[ShownRun], recorded: Sequence[RecordedRun | None]) -> Column:
    """One metric, a row for each run."""
    entry = metric_or_name(name)
    cells, keys = [], []
    for item in recorded:
        value = None if item is None else item.metrics.get(name)
        keys.append(value)
        decimals = decimals_of(entry, item.record.get("n") if item else None)
        cells.append("" if value is None else f"{value:.{decimals}f}")
    return Column(
        escape(entry.label), cells, list(keys), is_numeric=True, unit=f"({escape(entry.unit)})" if entry.unit else ""
    )


def _name(run: Run, *, with_flow: bool) -> str:
    """`mef, fpi, λ = 10⁴, seed 0`, `swin, standard+nfa`, or both."""
    parts = []
    if with_flow and run.flow and run.prior and run.weight is not None:
        parts = [escape(run.flow), escape(run.prior), f"λ = {write_weight(run.weight, HTML)}"]
    if run.classifier:
        parts.append(
            escape(run.classifier) + (f", augmentation {escape(run.augmentation)}" if run.augmentation else "")
        )
    return ", ".join(parts)


def _classes(root: Path, run: Run) -> list[str]:
    """Return the names of the classes of a run's data set; none where it is not there.

    Raises:
        DataError, ManifestError: it is damaged.
    """
    for splits in (SPLITS_OF_SEED.format(seed=run.seed), COMMON_SPLITS):
        folder = root / SPLITS.format(dataset=run.dataset, splits=splits) / "test"
        if find_product(folder / META) is not None or folder.is_dir():
            return read_image_set(folder, verify=False).classes
    return []


def _show(root: Path, item: RecordedRun, identifier: str, name: str) -> ShownRun:
    order = list(METRICS)
    values = [
        (metric_or_name(key).label, measured(value, metric_or_name(key), item.record.get("n")))
        for key, value in sorted(
            item.metrics.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else 99
        )
    ]
    run = ShownRun(identifier, name, item, values)
    if item.fault:
        run.faults.append(item.fault)
    if item.divergence:
        return run
    description = f"Training curves of {item.run.folder}"
    for folder in _trainings(item):
        _add(run, folder / LOG, lambda path: run.curves.append(embed(path.with_name(CURVES), description)))
    for folder in _image_sets(item):
        _add(run, folder / META, lambda path: run.samples.extend(_samples(path.parent)))
    _add(run, item.folder / "predictions.npz", lambda path: _add_agreement(run, path, root))
    return run


def _add_agreement(run: ShownRun, path: Path, root: Path) -> None:
    run.agreement = read_agreement(path, _classes(root, run.recorded.run))


def _add(run: ShownRun, path: Path, add: Callable[[Path], None]) -> None:
    """Add what a file of a stage holds.

    One that is not there, and that no manifest lists, adds nothing; a damaged one adds a fault.
    """
    try:
        if find_product(path) is not None or path.exists():
            add(path)
    except (ValueError, OSError, EOFError) as error:
        run.faults.append(" ".join(str(error).split()))


def _trainings(item: RecordedRun) -> list[Path]:
    """Folders of the trainings behind a run."""
    if item.run.classifier is None:
        return [item.folder]
    if item.run.augmentation is not None:
        return [item.folder / "trained"]
    temperature = item.metrics.get("temperature")
    return [] if temperature is None else [item.folder / f"temperature={format_weight(temperature)}"]


def _image_sets(item: RecordedRun) -> list[Path]:
    """Folders of the images that a flow generated, by temperature."""
    if item.run.classifier is not None:
        return []
    return sorted(path for path in item.folder.glob("generated/temperature=*") if path.is_dir())


def _samples(folder: Path) -> list[Picture]:
    picture = generated_images(folder, f"Images drawn at T = {folder.name.partition('=')[2]}, a column for each class.")
    return [] if picture is None else [picture]
