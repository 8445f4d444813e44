"""Calls of the workflow in a folder of results: what each records, times of its jobs, and the progress of its runs."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from nfpi.config.base import explain, strip_folders
from nfpi.config.settings import Config
from nfpi.results.numbers import format_duration
from nfpi.results.recorded.runs import RecordedRun, find_runs
from nfpi.runs import BENCHMARKS_FOLDER, LOGS_FOLDER, METRICS_FILE, VARIANTS, Run, parse_run_folder
from nfpi.runtime.chains import Chain
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object
from nfpi.runtime.job_log import LOG_SUFFIX, STATE_SUFFIX, JobState, read_state
from nfpi.runtime.locks import read_holder

SETTINGS_FILE = "settings.json"
"""File of the settings, from which :class:`nfpi.config.Config` is restored."""
FORMAT = 1
"""Version of its format."""
KEYS_FILE = "keys.json"
"""File of the keys that the products of the call should have, for the processes of its jobs."""
PLANNED_FILE = "planned.json"
"""File of the requested runs, which include those not started yet."""
_MACHINE_SETTINGS = {"resources", "cluster", "extensions"}
"""Settings that do not affect results, or that contain paths of this machine."""


class _Stored(Record):
    """Contents of the file."""

    format: Literal[1]
    preset: str = Field(min_length=1)
    extensions: list[str] = []
    settings: dict[str, Any]


@dataclass(frozen=True)
class StoredSettings:
    """The settings of a preset.

    Attributes:
        preset: name of the preset.
        config: its settings, without `resources`, `cluster` and `extensions`.
        extensions: file names of extensions, which must be loaded before the settings can be read.
    """

    preset: str
    config: Config
    extensions: tuple[str, ...] = ()

    @classmethod
    def of(cls, preset: str, config: Config) -> StoredSettings:
        """Create the stored form of the settings of a preset."""
        extensions = tuple(sorted(path.name for path in config.extensions))
        return cls(preset, _restore_config(config.model_dump(mode="json", exclude=_MACHINE_SETTINGS)), extensions)

    def to_text(self) -> str:
        """Return the contents of the file as text."""
        extensions = {"extensions": list(self.extensions)} if self.extensions else {}
        settings = self.config.model_dump(mode="json", exclude=_MACHINE_SETTINGS)
        content = {"format": FORMAT, "preset": self.preset, **extensions, "settings": settings}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_settings(folder: Path, stored: StoredSettings) -> Path:
    """Write the settings to `settings.json` in a folder."""
    return write_atomically(folder / SETTINGS_FILE, stored.to_text())


def read_settings(folder: Path) -> StoredSettings:
    """Read the file of :func:`write_settings`.

    Raises:
        FormatError: the file has another format, or settings unknown to this version.
        OSError: the file cannot be read.
    """
    path = folder / SETTINGS_FILE
    stored = check_record(_Stored, read_json_object(path), path, f"the settings of a preset in format {FORMAT}")
    try:
        config = _restore_config(stored.settings)
    except ValidationError as error:
        options = " ".join(f"--extensions {file}" for file in stored.extensions)
        hint = f"; load its extensions: nfpi {options} …" if stored.extensions else ""
        raise FormatError(f"{path}: expected settings of this version, received {explain(error)}{hint}") from None
    return StoredSettings(stored.preset, config, tuple(stored.extensions))


def write_keys(root: Path, keys: Mapping[str, str]) -> None:
    """Write the keys of products, by the paths of their manifests below results/{preset}."""
    write_atomically(root / KEYS_FILE, json.dumps(dict(keys), indent=0, ensure_ascii=False) + "\n")


def read_keys(root: Path) -> dict[str, str]:
    """Read the result of :func:`write_keys`; empty if there is none.

    Raises:
        FormatError: the file is damaged.
        OSError: the file cannot be read.
    """
    path = root / KEYS_FILE
    return dict(read_json_object(path)) if path.exists() else {}


def write_planned(root: Path, runs: Iterable[Run]) -> None:
    """Write the folders of the requested runs to results/{preset}/planned.json."""
    folders = list(dict.fromkeys(run.folder for run in runs))
    write_atomically(root / PLANNED_FILE, json.dumps({"runs": folders}, indent=2) + "\n")


def read_planned(root: Path) -> list[Run]:
    """Read the requested runs; empty if the file is missing or damaged."""
    try:
        folders = read_json_object(root / PLANNED_FILE)["runs"]
        runs = [parse_run_folder(folder) for folder in folders]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [run for run in runs if run is not None]


def _restore_config(settings: Mapping[str, Any]) -> Config:
    return Config.model_validate(strip_folders(settings))


# ---- times of jobs, from Snakemake's benchmarks/ -----------------------------------------------------------------

_MEASURED = ("s", "cpu_time", "max_rss")


def read_benchmark(path: Path) -> dict[str, float]:
    """Read seconds (`s`, `cpu_time`) and MB (`max_rss`) of the last execution of a job, by Snakemake's columns.

    Unknown values are left out (Snakemake writes NA for very short jobs); the result is empty for a damaged file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            last = list(csv.DictReader(file, delimiter="\t"))[-1]
        known = {name: float(last[name]) for name in _MEASURED if last.get(name) not in (None, "NA", "-")}
    except (OSError, ValueError, LookupError, csv.Error):
        return {}
    return {name: value for name, value in known.items() if math.isfinite(value)}


# ---- progress ----------------------------------------------------------------------------------------------------

_STATE = f"{LOG_SUFFIX}{STATE_SUFFIX}"
_FLOW_FOLDERS = ("fit", "generated", "generated/*", *VARIANTS.values())
_CLASSIFIER_FOLDERS = ("temperature=*", "trained")
"""Subfolders of a run that are filled or locked by separate jobs."""


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        run: identity of the run.
        state: `waiting`, `running`, `stopped`, `failed`, `diverged`, `damaged`, `outdated` or `done`.
        detail: stage, epoch and remaining time of a running run, error of a failed one, ...
        metrics: metrics of the run; empty unless it is done.
        seconds: total time of its finished jobs.
    """

    run: Run
    state: str
    detail: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def find_roots(results: Path) -> list[Path]:
    """Return `results` alone if it is a folder results/{preset}, otherwise all such folders in it.

    Raises:
        FileNotFoundError: there are none.
    """
    signs = (LOGS_FOLDER, SETTINGS_FILE, PLANNED_FILE)
    folders = (results, *sorted(results.glob("*")))
    roots = [folder for folder in folders if any((folder / name).exists() for name in signs)]
    if not roots:
        raise FileNotFoundError(f"{results}: expected results, or a folder of them, received none")
    return roots[:1] if roots[0] == results else roots


def read_progress(root: Path, chain: Chain | None = None) -> list[Progress]:
    """Return the progress of all requested runs, and of others that have results or logs.

    It is determined from results, locks, and the states and times of jobs, also of jobs on a cluster, which write the
    same files. Nothing is locked or changed.

    Args:
        root: results/{preset}.
        chain: see :func:`find_runs`.
    """
    recorded = {item.run: item for item in find_runs(root, chain)}
    logged = (
        parse_run_folder(path.relative_to(root / LOGS_FOLDER).as_posix()) for path in (root / LOGS_FOLDER).glob("**/")
    )
    runs = dict.fromkeys([*read_planned(root), *recorded, *(run for run in logged if run is not None)])
    return [_determine_progress(root, run, recorded.get(run)) for run in runs]


def _list_states(root: Path, run: Run) -> list[Path]:
    """Return the files of the states of a run's jobs, oldest first."""
    folders = _list_folders(root / LOGS_FOLDER / run.folder, run)
    return sorted((path for folder in folders for path in folder.glob(f"*{_STATE}")), key=_read_modification_time)


def _name_job(state: Path) -> str:
    return state.name.removesuffix(_STATE)


def _determine_progress(root: Path, run: Run, recorded: RecordedRun | None) -> Progress:
    folders = _list_folders(root / BENCHMARKS_FOLDER / run.folder, run)
    seconds = sum(read_benchmark(path).get("s", 0.0) for folder in folders for path in folder.glob("*.tsv"))
    state, detail = _find_state(root, run, recorded)
    metrics = recorded.metrics if recorded is not None and state == "done" else {}
    return Progress(run, state, detail, metrics, seconds)


def _find_state(root: Path, run: Run, recorded: RecordedRun | None) -> tuple[str, str]:
    """Return the state and the detail of a run."""
    jobs = _list_states(root, run)
    last = _name_job(jobs[-1]) if jobs else ""
    if holder := _find_holder(root, run):
        epoch = describe_epoch(read_state(jobs[-1])) if jobs else ""
        return "running", ", ".join(filter(None, [last, epoch, holder]))
    fault = _find_fault(root, run, jobs)
    if fault is not None:
        return fault
    if recorded is None:
        return "waiting", f"after {last}" if jobs else ""
    if recorded.fault:
        return "damaged", recorded.fault
    if recorded.divergence:
        return "diverged", recorded.divergence.removeprefix("diverged: ")
    return ("outdated", recorded.outdated) if recorded.outdated else ("done", recorded.mismatch)


def _list_folders(folder: Path, run: Run) -> Iterator[Path]:
    """Yield the folder of a run, and its subfolders that do not belong to other runs."""
    yield folder
    for pattern in _FLOW_FOLDERS if run.classifier is None else _CLASSIFIER_FOLDERS:
        yield from folder.glob(pattern)


def _find_holder(root: Path, run: Run) -> str:
    """Return the process that works on a run, e.g. `process 17 on node3, since …`; empty if there is none."""
    locks = (path for folder in _list_folders(root / run.folder, run) for path in folder.glob(".*.lock"))
    return next(filter(None, map(read_holder, locks)), "")


def _find_fault(root: Path, run: Run, jobs: list[Path]) -> tuple[str, str] | None:
    """Return the state and detail of the last job that failed or was stopped; None if there is none.

    The jobs of one folder run one after the other, so the newest state in each folder says how its last job ended.
    States older than metrics.json are ignored. No process holds a lock, so a job whose state is `running` was killed
    (or has only just begun).
    """
    metrics = root / run.folder / METRICS_FILE
    newest = {path.parent: path for path in jobs}.values()
    for path in sorted(newest, key=jobs.index, reverse=True):
        if _read_modification_time(path) < _read_modification_time(metrics):
            break
        job = read_state(path) or JobState()
        if job.state == "failed":
            return "failed", f"{_name_job(path)}: {job.error}"
        if job.state in ("stopped", "running"):
            return "stopped", ", ".join(filter(None, [_name_job(path), describe_epoch(job, time_left=False)]))
    return None


def _read_modification_time(path: Path) -> float:
    """Return the modification time of a file, 0 if it is missing: Snakemake removes logs before retrying a job."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def describe_epoch(job: JobState | None, time_left: bool = True) -> str:
    """Return e.g. `epoch 12/40, about 5 min left`; empty if the job trains nothing."""
    if job is None or not job.epochs:
        return ""
    epoch, epochs_left = f"epoch {job.epoch}/{job.epochs}", job.epochs - job.epoch
    if not (time_left and epochs_left and job.epoch_seconds):
        return epoch
    return f"{epoch}, about {format_duration(epochs_left * job.epoch_seconds)} left"
