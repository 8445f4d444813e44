"""Progress of the runs in a folder of results, determined from its results, locks, and the states and times of jobs.

This includes jobs on a cluster, which write the same files. Nothing is locked or changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nfpi.results.recorded.runs import OUTDATED, RecordedRun, find_runs
from nfpi.results.recorded.settings import PLANNED_FILE, read_planned
from nfpi.results.recorded.times import format_duration, read_seconds
from nfpi.runs import (
    BENCHMARKS_FOLDER,
    LOGS_FOLDER,
    METRICS_FILE,
    VARIANTS,
    Run,
    parse_run_folder,
)
from nfpi.runtime.chains import Chain
from nfpi.runtime.job_log import LOG_SUFFIX, STATE_SUFFIX, JobState, read_state
from nfpi.runtime.locks import read_holder

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
    roots = [folder for folder in (results, *sorted(results.glob("*"))) if _is_root(folder)]
    if not roots:
        raise FileNotFoundError(f"{results}: expected results, or a folder of them, received none")
    return roots[:1] if roots[0] == results else roots


def require_root(folder: Path) -> None:
    """Check that a folder is not the parent of folders results/{preset}.

    Raises:
        FileNotFoundError: there is no such folder, or the results of presets are in folders of it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of results, received none")
    inner = next((inner for inner in sorted(folder.glob("*")) if _is_root(inner)), None)
    if inner is not None and not _is_root(folder):
        raise FileNotFoundError(f"{folder}: expected the results of one preset, such as {inner}, received their parent")


def _is_root(folder: Path) -> bool:
    return (folder / LOGS_FOLDER).is_dir() or (folder / PLANNED_FILE).is_file()


def read_progress(root: Path, chain: Chain | None = None) -> list[Progress]:
    """Return the progress of all requested runs, and of others that have results or logs.

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


def list_logs(root: Path, run: Run) -> list[Path]:
    """Return the logs of the jobs of a run, oldest first."""
    return _list_job_files(root, run, LOG_SUFFIX)


def _list_job_files(root: Path, run: Run, suffix: str) -> list[Path]:
    """Return the files of the jobs of a run in `logs/` with a suffix, oldest first."""
    folders = _list_folders(root / LOGS_FOLDER / run.folder, run)
    return sorted((path for folder in folders for path in folder.glob(f"*{suffix}")), key=read_modification_time)


def _name_job(state: Path) -> str:
    return state.name.removesuffix(_STATE)


def is_running(root: Path, run: Run) -> bool:
    """Return whether a job of the run is running."""
    return bool(_find_holder(root, run))


def _determine_progress(root: Path, run: Run, recorded: RecordedRun | None) -> Progress:
    folders = _list_folders(root / BENCHMARKS_FOLDER / run.folder, run)
    seconds = sum(read_seconds(path) or 0.0 for folder in folders for path in folder.glob("*.tsv"))
    state, detail = _find_state(root, run, recorded)
    metrics = recorded.metrics if recorded is not None and state == "done" else {}
    return Progress(run, state, detail, metrics, seconds)


def _find_state(root: Path, run: Run, recorded: RecordedRun | None) -> tuple[str, str]:
    """Return the state and the detail of a run."""
    jobs = _list_job_files(root, run, _STATE)
    last = _name_job(jobs[-1]) if jobs else ""
    if holder := _find_holder(root, run):
        epoch = _describe_epoch(read_state(jobs[-1])) if jobs else ""
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
    return ("outdated", OUTDATED) if recorded.is_outdated else ("done", recorded.mismatch)


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
        if read_modification_time(path) < read_modification_time(metrics):
            break
        job = read_state(path) or JobState()
        if job.state == "failed":
            return "failed", f"{_name_job(path)}: {job.error}"
        if job.state in ("stopped", "running"):
            return "stopped", ", ".join(filter(None, [_name_job(path), _describe_epoch(job, time_left=False)]))
    return None


def read_modification_time(path: Path) -> float:
    """Return the modification time of a file, 0 if it is missing: Snakemake removes logs before retrying a job."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _describe_epoch(job: JobState | None, time_left: bool = True) -> str:
    """Return e.g. `epoch 12/40, about 5 min left`; empty if the job trains nothing."""
    if job is None or not job.epochs:
        return ""
    epoch, epochs_left = f"epoch {job.epoch}/{job.epochs}", job.epochs - job.epoch
    if not (time_left and epochs_left and job.epoch_seconds):
        return epoch
    return f"{epoch}, about {format_duration(epochs_left * job.epoch_seconds)} left"
