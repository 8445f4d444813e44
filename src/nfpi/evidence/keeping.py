"""Evidence: what the tables and claims of a preset are made from, in a folder of three or four files.

- `runs.csv`: all metrics of all runs, one row per value. The first row of a run has no metric, but in `status` whether
  it diverged, and in `record` the rest of its metrics.json: settings, versions, commit, device.
- `predictions.npz`: labels and predicted classes of the runs that a table or a claim compares image by image, if any;
  also log p(y | x) in float16 of those of a table with metrics of probabilities, such as ECE.
- `settings.json`: the settings of the preset, with the seeds of these runs.
- `SHA256SUMS`: checksums of the others, in the format of `sha256sum`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from nfpi.config.base import explain, list_execution_settings
from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.flows import TrainingConfig
from nfpi.config.metrics import is_computed
from nfpi.config.settings import Config
from nfpi.results.recorded.calls import SETTINGS_FILE, StoredSettings, read_settings
from nfpi.results.recorded.csv_files import read_csv, write_rows
from nfpi.results.recorded.predictions import Predictions, pack_predictions, read_packed_predictions, read_predictions
from nfpi.results.recorded.records import to_finite_float
from nfpi.results.recorded.runs import IDENTITY, OUTDATED, RecordedRun, find_runs, make_rows, sort_runs
from nfpi.results.tables.rows import (
    list_runs_compared_by_image,
    list_runs_to_compare,
    list_table_rows,
    list_tabled_runs,
)
from nfpi.runs import PREDICTIONS_FILE, Run
from nfpi.runtime.chains import Chain
from nfpi.runtime.files import file_digest, write_atomically, written_together
from nfpi.runtime.formats import parse_json

RUNS, SUMS = "runs.csv", "SHA256SUMS"
COLUMNS = IDENTITY | {"metric": "str", "value": "float64", "n": "Int64", "status": "str", "record": "str"}
"""Columns of runs.csv and their types."""
_IN_COLUMNS = ("run", "metrics", "n")
"""Keys of metrics.json that `record` leaves out."""
_WITHOUT_EFFECT = {"devices", *list_execution_settings(TrainingConfig, ClassifierConfig)}
"""Settings of a run that do not affect its metrics, by the last part of their dotted names."""
_COMMON_TO_SEEDS = ("training.", "flow.", "classifier.", "augmentation")
"""Settings that must be equal in the runs of all seeds, by the first part of their dotted names."""


class EvidenceError(ValueError):
    """Evidence, runs to be added to it, or blocks of Markdown files to be filled from it are missing or invalid."""


@dataclass(frozen=True)
class Kept:
    """The contents of a folder of evidence, without its settings.

    Attributes:
        runs: the runs, in the order of :func:`nfpi.results.recorded.runs.find_runs`; their folders do not exist.
        predictions: predictions by run.
    """

    runs: Sequence[RecordedRun] = ()
    predictions: Mapping[Run, Predictions] = field(default_factory=dict)


def read_kept(folder: Path) -> Kept:
    """Read the runs and predictions in a folder of evidence, and verify all of its files.

    Raises:
        EvidenceError: a file is missing, damaged, or not listed in SHA256SUMS.
        CsvError: runs.csv is not such a table.
        MetricsError: predictions.npz has other contents.
        OSError: a file cannot be read.
    """
    _check_files(folder)
    records: dict[Run, dict[str, Any]] = {}
    for row in read_csv(folder / RUNS, COLUMNS).to_dict("records"):
        known = {name: row[name] for name in IDENTITY if row[name] not in ("", None) and row[name] == row[name]}
        try:
            run, name = Run.from_json(known), row["metric"]
            if name:
                records[run]["metrics"][name] = to_finite_float(row["value"], name)
            else:
                record = parse_json(row["record"])
                measured = {} if "diverged" in record else {"run": run.to_json(), "metrics": {}, "n": row["n"]}
                records[run] = measured | record
        except (ValueError, KeyError) as error:
            raise EvidenceError(f"{folder / RUNS}: {known}: expected a run, received another row ({error})") from None
    path = folder / PREDICTIONS_FILE
    found = read_packed_predictions(path) if path.is_file() else {}
    runs = [RecordedRun(run, folder / run.folder, record) for run, record in records.items()]
    return Kept(runs, {run: found[run.folder] for run in records if run.folder in found})


def gather_evidence(
    root: Path,
    output: Path,
    stored: StoredSettings,
    chain: Chain | None = None,
    *,
    with_other_settings: bool = False,
) -> Config:
    """Keep the metrics of the runs of all tables, the predictions that these compare, and the settings.

    Existing evidence is extended by further seeds and tables.

    Args:
        root: results/{preset}.
        output: folder of the evidence.
        stored: settings of the preset; if there are runs in `root`, their seeds replace those of the preset.
        chain: says which runs are outdated, see :func:`find_runs`.
        with_other_settings: whether to accept runs whose settings differ from those of the existing evidence, or from
            those in settings.json of `root`.

    Returns:
        The settings of the evidence, with the seeds of its runs that a table shows.

    Raises:
        EvidenceError: there are no runs, a run is damaged or has other settings, runs of one data set were made from
            different images, or the evidence is damaged, or has a table, figure or claim that does not fit `stored`.
        FormatError: settings.json of the evidence is of another version.
        MetricsError: predictions are damaged.
        OSError: a file cannot be read or written.
    """
    recorded = {item.run: item for item in find_runs(root, chain)}
    wanted = list_tabled_runs(replace_seeds(stored.config, {run.seed for run in recorded} or stored.config.seeds))
    chosen = [recorded[run] for run in wanted if run in recorded]
    if not chosen:
        raise EvidenceError(f"{root}: expected runs of the tables {', '.join(stored.config.tables)}, received none")
    for item in chosen:
        _check_run(item, with_other_settings)
    _check_data(chosen, stored.config)
    predictions = {item.run: read_predictions(item.folder / PREDICTIONS_FILE) for item in chosen if not item.divergence}
    earlier = read_kept(output) if (output / SUMS).is_file() else Kept()
    existing = {item.run: item for item in earlier.runs}
    if not with_other_settings:
        _check_settings(chosen, existing, output)
    kept = existing | {item.run: item for item in chosen}
    merged = _merge_settings(output, stored) if earlier.runs else stored
    # A seed of which no run is in a table any more (all are of an earlier λ) would count as planned: it is left out.
    tabled = list_tabled_runs(replace_seeds(merged.config, {run.seed for run in kept}))
    config = replace_seeds(merged.config, {run.seed for run in tabled if run in kept})
    available = {**earlier.predictions, **predictions}
    compared = {run: _drop_probabilities(available[run]) for run in _list_compared_runs(config) if run in available}
    compared |= {run: available[run] for run in _list_scored_runs(config) if run in available}
    _write(output, sort_runs(kept.values()), compared, replace(merged, config=config).to_text())
    return config


def replace_seeds(config: Config, seeds: Iterable[int]) -> Config:
    """Return the settings with other seeds."""
    return Config.model_validate(config.model_dump() | {"seeds": sorted(seeds)})


def _list_compared_runs(config: Config) -> list[Run]:
    """Return the runs whose predictions tables and claims compare image by image."""
    tables = {name: list_table_rows(config, name) for name in config.tables}
    of_tables = [
        run for name, rows in tables.items() for run in list_runs_to_compare(rows, config.tables[name].metrics)
    ]
    return list(dict.fromkeys([*of_tables, *list_runs_compared_by_image(config)]))


def _list_scored_runs(config: Config) -> list[Run]:
    """Return the runs of tables that have a metric of probabilities."""
    scored = [name for name, table in config.tables.items() if any(map(is_computed, table.metrics))]
    return [run for name in scored for row in list_table_rows(config, name) for run in row.runs]


def _drop_probabilities(predictions: Predictions) -> Predictions:
    return Predictions(predictions.label, predictions.predicted, np.zeros(0, np.float32), np.zeros((0, 0), np.float32))


def _write(output: Path, runs: Sequence[RecordedRun], compared: Mapping[Run, Predictions], settings: str) -> None:
    """Write the files of the evidence, together or not at all, and then their checksums."""
    packed = pack_predictions({run.folder: predictions for run, predictions in compared.items()})
    with written_together():
        write_rows(output / RUNS, list(COLUMNS), (row for item in runs for row in _make_rows(item)))
        write_atomically(output / SETTINGS_FILE, settings)
        if compared:
            write_atomically(output / PREDICTIONS_FILE, packed)
    names = [RUNS, SETTINGS_FILE, *([PREDICTIONS_FILE] if compared else [])]
    lines = sorted(f"{file_digest(output / name)}  {name}\n" for name in names)
    write_atomically(output / SUMS, "".join(lines))
    if not compared:
        (output / PREDICTIONS_FILE).unlink(missing_ok=True)


def _make_rows(item: RecordedRun) -> Iterable[dict[str, Any]]:
    """Yield the rows of a run in runs.csv."""
    rest = {name: value for name, value in item.record.items() if name not in _IN_COLUMNS}
    text = json.dumps(rest, ensure_ascii=False, separators=(",", ":"))
    about = {"n": item.record.get("n"), "status": item.divergence or "ok", "record": text}
    yield item.run.row() | about
    yield from (row for row in make_rows(item.run, item.record) if row["metric"])


def _check_files(folder: Path) -> None:
    """Verify the files of a folder of evidence by SHA256SUMS.

    Raises:
        EvidenceError: SHA256SUMS or a file is missing, or a file differs or is not listed.
        OSError: a file cannot be read.
    """
    if not (folder / SUMS).is_file():
        raise EvidenceError(f"{folder}: expected evidence, received a folder without {SUMS}")
    text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    listed = {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}
    for name in (RUNS, SETTINGS_FILE, PREDICTIONS_FILE):
        path = folder / name
        found = file_digest(path) if path.is_file() else None
        if found != listed.get(name) or (found is None and name != PREDICTIONS_FILE):
            received = "none" if found is None else "another one"
            raise EvidenceError(f"{path}: expected the file whose checksum {SUMS} has, received {received}")


def _check_run(item: RecordedRun, with_other_settings: bool) -> None:
    """Check that the metrics of a run are intact, and those of the present settings and inputs.

    Raises:
        EvidenceError: they are not.
    """
    if item.fault:
        raise EvidenceError(item.fault)
    if item.outdated and not with_other_settings:
        raise EvidenceError(
            f"{item.folder}: {OUTDATED} ({item.outdated}); --with-other-settings accepts the run as it is"
        )


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


def _check_settings(chosen: Sequence[RecordedRun], existing: dict[Run, RecordedRun], output: Path) -> None:
    """Check that each run has the same settings as the run that it replaces and the runs of other seeds.

    Raises:
        EvidenceError: the settings differ.
    """
    first: dict[Run, RecordedRun] = {}
    for item in [*existing.values(), *chosen]:
        other = existing.get(item.run, item)
        differing = _list_differing_settings(item, other)
        if not differing:
            other = first.setdefault(replace(item.run, seed=0), item) if item.settings else item
            differing = [name for name in _list_differing_settings(item, other) if name.startswith(_COMMON_TO_SEEDS)]
        if differing:
            names = ", ".join(differing[:3]) + (", ..." if len(differing) > 3 else "")
            raise EvidenceError(
                f"{item.folder}: expected the settings of {other.folder}, received others: {names}; "
                "--with-other-settings accepts the run, another --output keeps both runs"
            )


def _list_differing_settings(first: RecordedRun, second: RecordedRun) -> list[str]:
    """Return the names of the settings that both runs have, with different values; diverged runs have none."""
    names = [name for name in first.settings if name in second.settings]
    names = [name for name in names if name.rpartition(".")[2] not in _WITHOUT_EFFECT]
    return sorted(name for name in names if first.settings[name] != second.settings[name])


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
