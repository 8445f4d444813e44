"""Copying of the metrics and predictions that the tables and claims of a preset are made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from nfpi.config.base import explain, list_execution_settings
from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.metrics import find_metric
from nfpi.config.settings import Config
from nfpi.config.training import TrainingConfig
from nfpi.evidence.checksums import FILE as SUMS
from nfpi.evidence.checksums import EvidenceError, check_files, read_checksums, write_checksums
from nfpi.results.recorded.predictions import read_predictions, shorten_predictions
from nfpi.results.recorded.runs import OUTDATED, RecordedRun, find_runs
from nfpi.results.recorded.settings import FILE as SETTINGS
from nfpi.results.recorded.settings import StoredSettings, read_settings
from nfpi.results.tables.rows import list_tabled_runs
from nfpi.runs import METRICS_FILE, PREDICTIONS_FILE, Run
from nfpi.runtime.files import write_atomically, written_together
from nfpi.runtime.seals import Seals

_WITHOUT_EFFECT = {"devices", *list_execution_settings(TrainingConfig, ClassifierConfig)}
"""Settings of a run that do not affect its metrics, by the last part of their dotted names."""
_COMMON_TO_SEEDS = ("training.", "flow.", "classifier.", "augmentation")
"""Settings that must be equal in the runs of all seeds, by the first part of their dotted names."""


@dataclass(frozen=True)
class GatheringSummary:
    """Summary of a call of :func:`gather_evidence`.

    Attributes:
        runs: number of copied runs.
        missing: number of runs of the tables that `root` lacks; only seeds are counted of which it has at least one.
        added: runs that are new in the evidence.
        replaced: runs whose metrics.json differs from that in the earlier evidence.
        changed: replaced runs whose metrics, except for times, differ.
        seeds: seeds of the evidence after the call: those of its runs that a table shows.
    """

    runs: int
    missing: int
    added: list[Run] = field(default_factory=list)
    replaced: list[Run] = field(default_factory=list)
    changed: list[Run] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


def replace_seeds(config: Config, seeds: Iterable[int]) -> Config:
    """Return the settings with other seeds."""
    return Config.model_validate(config.model_dump() | {"seeds": sorted(seeds)})


def gather_evidence(
    root: Path,
    output: Path,
    stored: StoredSettings,
    seals: Seals | None = None,
    *,
    with_other_settings: bool = False,
) -> GatheringSummary:
    """Copy metrics and predictions of the runs of all tables, and write settings and checksums.

    Existing evidence is extended by further seeds and tables.

    Args:
        root: results/{preset}.
        output: folder of the evidence.
        stored: settings of the preset; if there are runs in `root`, their seeds replace those of the preset.
        seals: says which runs are outdated, see :func:`find_runs`.
        with_other_settings: whether to accept runs whose settings differ from those of the existing evidence, or from
            those in settings.json of `root`.

    Raises:
        EvidenceError: there are no runs, a run is damaged or has other settings, runs of one data set were made from
            different images, or the evidence is damaged, or has a table, figure or claim that does not fit `stored`.
        FormatError: settings.json of the evidence is of another version.
        MetricsError: predictions are damaged.
        OSError: a file cannot be read or written.
    """
    recorded = {item.run: item for item in find_runs(root, seals)}
    wanted = list_tabled_runs(replace_seeds(stored.config, {run.seed for run in recorded} or stored.config.seeds))
    chosen = [recorded[run] for run in wanted if run in recorded]
    if not chosen:
        raise EvidenceError(f"{root}: expected runs of the tables {', '.join(stored.config.tables)}, received none")
    _check_data(chosen, stored.config)
    if not with_other_settings:
        _check_seals(chosen)
    contents = {name: content for item in chosen for name, content in _read_files(item).items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    earlier = read_checksums(output) if (output / SUMS).is_file() else {}
    # Files to be written now are not verified: an earlier call that was killed may have written some of them.
    check_files(output, {name: digest for name, digest in earlier.items() if name not in (*digests, SETTINGS)})
    existing = {item.run: item for item in find_runs(output) if f"{item.run.folder}/{METRICS_FILE}" in earlier}
    if not with_other_settings:
        _check_settings(chosen, existing, output)
    kept = {*existing, *(item.run for item in chosen)}
    merged = _merge_settings(output, stored) if earlier else stored
    # A seed of which no run is in a table any more (all are of an earlier λ) would count as planned: it is left out.
    tabled = list_tabled_runs(replace_seeds(merged.config, {run.seed for run in kept}))
    seeds = sorted({run.seed for run in tabled if run in kept})
    settings = replace(merged, config=replace_seeds(merged.config, seeds)).to_text()
    digests = earlier | digests | {SETTINGS: hashlib.sha256(settings.encode()).hexdigest()}
    with written_together():
        for name, content in contents.items():
            if digests[name] != earlier.get(name) or not (output / name).is_file():
                write_atomically(output / name, content)
        write_atomically(output / SETTINGS, settings)
        write_checksums(output, digests)
    chosen_seeds = {item.run.seed for item in chosen}
    replaced = [item for item in chosen if item.run in existing and item.record != existing[item.run].record]
    return GatheringSummary(
        runs=len(chosen),
        missing=sum(run not in recorded and run.seed in chosen_seeds for run in wanted),
        added=[item.run for item in chosen if item.run not in existing],
        replaced=[item.run for item in replaced],
        changed=[item.run for item in replaced if _collect_outcome(item) != _collect_outcome(existing[item.run])],
        seeds=seeds,
    )


def _read_files(item: RecordedRun) -> dict[str, bytes]:
    """Check the files of a run, and return their contents, by path relative to the evidence."""
    metrics, predictions, folder = item.folder / METRICS_FILE, item.folder / PREDICTIONS_FILE, item.run.folder
    if item.fault:
        raise EvidenceError(item.fault)
    files = {f"{folder}/{METRICS_FILE}": metrics.read_bytes()}
    if item.divergence:  # diverged runs have no predictions
        return files
    if item.record.get("run") != item.run.to_json():
        raise EvidenceError(f"{metrics}: expected the metrics of {folder}, received those of {item.record.get('run')}")
    check_predictions(item)
    return files | {f"{folder}/{PREDICTIONS_FILE}": shorten_predictions(read_predictions(predictions))}


def check_predictions(item: RecordedRun) -> None:
    """Check that the predictions of a run can be read, and that there are `n` of them, as its metrics say.

    Raises:
        EvidenceError: the numbers differ.
        MetricsError: the predictions are damaged.
        OSError: the predictions cannot be read.
    """
    path, expected = item.folder / PREDICTIONS_FILE, item.record.get("n")
    received = read_predictions(path).label.size
    if received != expected:
        raise EvidenceError(f"{path}: expected predictions of {expected} images, received {received}")


def _check_data(chosen: Sequence[RecordedRun], config: Config) -> None:
    """Check that all runs of the same splits were made from the same images; runs without a manifest are skipped.

    Tables compare predictions image by image, and equal labels do not show that the images are equal.

    Raises:
        EvidenceError: two runs were made from different images; both are named.
    """
    first: dict[tuple[str, str], RecordedRun] = {}
    for item in chosen:
        if not item.data:
            continue
        other = first.setdefault((item.run.dataset, config.splits_of(item.run.dataset, item.run.seed)), item)
        if item.data != other.data:
            raise EvidenceError(
                f"{item.folder}: expected the same data set as {other.folder}, received another one; `snakemake all` "
                "makes the older run again, if its seed is in `seeds`"
            )


def _check_seals(chosen: Sequence[RecordedRun]) -> None:
    """Check that the runs were made with the settings of the last call of the workflow, from the present inputs.

    Raises:
        EvidenceError: a run is outdated.
    """
    for item in chosen:
        if item.is_outdated:
            raise EvidenceError(f"{item.folder}: {OUTDATED}; --with-other-settings accepts the run as it is")


def _check_settings(chosen: Sequence[RecordedRun], existing: dict[Run, RecordedRun], output: Path) -> None:
    """Check that each run has the same settings as the run that it replaces and the runs of other seeds.

    Raises:
        EvidenceError: the settings differ.
    """
    first: dict[Run, RecordedRun] = {}
    for item in [*existing.values(), *chosen]:
        if item.fault:
            raise EvidenceError(item.fault)
        other = existing.get(item.run, item)
        differing = list_differing_settings(item, other)
        if not differing:
            other = first.setdefault(replace(item.run, seed=0), item) if item.settings else item
            differing = [name for name in list_differing_settings(item, other) if name.startswith(_COMMON_TO_SEEDS)]
        if differing:
            names = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
            raise EvidenceError(
                f"{item.folder}: expected the settings of {other.folder}, received others: {names}; "
                "--with-other-settings accepts the run, another --output keeps both runs"
            )


def list_differing_settings(first: RecordedRun, second: RecordedRun) -> list[str]:
    """Return the names of the settings that both runs have, with different values; diverged runs have none."""
    names = [name for name in first.settings if name in second.settings]
    names = [name for name in names if name.rpartition(".")[2] not in _WITHOUT_EFFECT]
    return sorted(name for name in names if first.settings[name] != second.settings[name])


def _collect_outcome(item: RecordedRun) -> dict[str, object]:
    """Return the metrics of a run except for times, and its divergence."""
    metrics = {name: value for name, value in item.metrics.items() if not find_metric(name).is_time}
    return {**metrics, "divergence": item.divergence}


def _merge_settings(output: Path, stored: StoredSettings) -> StoredSettings:
    """Return the new settings, with the tables, figures and claims of the existing evidence that they lack.

    Raises:
        EvidenceError: the new settings lack what one of these refers to, such as the prior of a table.
    """
    earlier, later = read_settings(output).config.model_dump(), stored.config.model_dump()
    extended = {name: earlier[name] | later[name] for name in ("tables", "figures", "claims") if name in later}
    try:
        config = Config.model_validate(later | extended)
    except ValidationError as error:
        raise EvidenceError(
            f"{output}: expected tables, figures and claims that fit the new settings, received {explain(error)}; "
            "another --output keeps the old and the new settings"
        ) from None
    return replace(stored, config=config)
