"""Cost of the jobs that tables depend on: wall-clock time, processor time and memory.

Costs are read from Snakemake's benchmarks/, or, for a job without a benchmark, from `seconds` in its metrics.json. The
time of a job with a manifest but neither of these is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from nfpi.results.markup.files import escape_markdown
from nfpi.results.recorded.records import MetricsError, read_record
from nfpi.results.recorded.times import read_benchmark
from nfpi.results.tables.layout import Column, Table
from nfpi.runs import (
    AUGMENTED,
    BENCHMARKS_FOLDER,
    COLLECTED_FOLDER,
    COMMON_SPLITS,
    FIGURES_FOLDER,
    FLOW_RUN,
    GENERATED,
    INITIAL,
    LOGS_FOLDER,
    METRICS_FILE,
    TABLES_FOLDER,
    TRAINED_CLASSIFIER,
    Run,
    get_variants_folder,
)
from nfpi.runtime.manifests import ManifestError, find_manifests, read_manifest

COLUMNS = {
    "table": "str",
    "stage": "str",
    "device": "str",
    "jobs": "int64",
    "hours": "float64",
    "cpu_hours": "float64",
    "memory": "float64",
    "unknown": "int64",
}
"""Columns of the table of costs and their types; `memory` is the maximum over the jobs, in GiB."""

ALL = "all"
"""Entry in the rows that sum over all tables, stages or devices."""

_NOT_RUNS = (LOGS_FOLDER, BENCHMARKS_FOLDER, TABLES_FOLDER, COLLECTED_FOLDER, FIGURES_FOLDER)
"""Folders in results/{preset} that hold no runs."""
_TRAINED = TRAINED_CLASSIFIER.rpartition("/")[2]
_PARTS = ("fit", "model", _TRAINED)
"""Names of output folders; the benchmark of their job is named after the folder above them."""
_WITH_METRICS = ("evaluate", "test_classifier", "train_classifier")
"""Stages whose duration is recorded in the metrics.json that they write."""
_MIB_PER_GIB = 1024


@dataclass(frozen=True)
class Job:
    """Cost of one job; NaN if unknown.

    Attributes:
        stage: name of its rule.
        folder: folder that its benchmark is named after, relative to results/{preset}.
        seconds: wall-clock time.
        cpu_seconds: processor time.
        memory: maximum resident memory, in MiB.
        device: description of the device; empty: unknown.
    """

    stage: str
    folder: str
    seconds: float = math.nan
    cpu_seconds: float = math.nan
    memory: float = math.nan
    device: str = ""


def read_jobs(root: Path) -> list[Job]:
    """Read the cost of all jobs of results/{preset}, sorted by folder; damaged files are ignored."""
    benchmarks = {
        (path.parent.relative_to(root / BENCHMARKS_FOLDER).as_posix(), path.stem): path
        for path in sorted((root / BENCHMARKS_FOLDER).glob("**/*.tsv"))
    }
    devices: dict[str, str] = {}
    jobs = []
    for folder, stage in sorted(benchmarks.keys() | set(_find_finished_jobs(root))):
        path = benchmarks.get((folder, stage))
        measured = read_benchmark(path) if path is not None else {}
        seconds = measured.get("s", math.nan)
        if math.isnan(seconds) and stage in _WITH_METRICS:
            seconds = float(_read_metrics(_locate_metrics(root / folder, stage)).get("seconds", math.nan))
        device = _find_device(root, folder, stage, devices)
        cpu_seconds, memory = measured.get("cpu_time", math.nan), measured.get("max_rss", math.nan)
        jobs.append(Job(stage, folder, seconds, cpu_seconds, memory, device))
    return jobs


def _find_finished_jobs(root: Path) -> Iterator[tuple[str, str]]:
    """Yield folder and stage of each job that has a manifest."""
    for path in find_manifests(root):
        folder = path.parent.relative_to(root)
        if not folder.parts or folder.parts[0] in _NOT_RUNS:  # claims are in the folder of results itself
            continue
        try:
            stage = read_manifest(path).stage.replace("-", "_")
        except (ManifestError, OSError):
            continue
        yield (folder.parent if folder.name in _PARTS else folder).as_posix(), stage


def _locate_metrics(folder: Path, stage: str) -> Path:
    """Return the folder of the metrics that a job wrote: on real images, training and test have one folder each."""
    trained = folder / _TRAINED
    return trained if stage == "train_classifier" and trained.is_dir() else folder


def _read_metrics(folder: Path) -> Mapping[str, Any]:
    """Return the contents of metrics.json in a folder; empty if it is missing or damaged."""
    try:
        return read_record(folder / METRICS_FILE)
    except (MetricsError, OSError):
        return {}


def _find_device(root: Path, folder: str, stage: str, known: dict[str, str]) -> str:
    """Return the device in the metrics that a job wrote, or else in those of its folder, its parent or grandparent."""
    place = PurePosixPath(folder)
    own = PurePosixPath(_locate_metrics(root / folder, stage).relative_to(root))
    for candidate in dict.fromkeys((own, place, *place.parents[:2])):
        name = candidate.as_posix()
        if name not in known:
            known[name] = str(_read_metrics(root / name).get("device") or "")
        if known[name]:
            return known[name]
    return ""


# ---- dependencies of a table ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Dependencies:
    """The jobs that a table depends on, for any seed.

    Args:
        runs: all runs of the table.
        starts: initial state of each prior, as in paths: `data`, `isotropic`, `identity`, `random`.
    """

    runs: tuple[Run, ...]
    starts: Mapping[str, str]

    def include(self, job: Job) -> bool:
        """Return whether the table depends on a job."""
        folder = _replace_seed(job.folder)
        if (folder, job.stage) in self._jobs:
            return True
        return any(folder == place or folder.startswith(f"{place}/") for place in self._folders)

    @cached_property
    def _jobs(self) -> set[tuple[str, str]]:
        """Pairs (folder, stage) of the jobs of flows that the runs depend on."""
        needed = set()
        for run in self.runs:
            if run.flow is None:
                continue
            needed |= {(_fill_template(FLOW_RUN, run), stage) for stage in ("fit_prior", "train_flow")}
            needed |= {(_fill_template(FLOW_RUN, run), "evaluate")} if run.classifier is None else set()
        return needed

    @cached_property
    def _folders(self) -> set[str]:
        """Folders whose jobs, at any depth, are all needed by the runs."""
        needed = set()
        for run in self.runs:
            needed.add(f"{run.dataset}/{COMMON_SPLITS}")
            if run.classifier is not None:
                needed.add(_replace_seed(run.folder))
            if run.flow is None:
                continue
            start = self.starts.get(run.prior or "", "data")
            needed.add(INITIAL.format(dataset=run.dataset, flow=run.flow, start=start, seed="*"))
            if run.classifier is not None and run.augmentation is None:
                needed.add(_fill_template(GENERATED, run).rpartition("/")[0])
            if run.augmentation is not None and get_variants_folder(run.augmentation) is not None:
                needed.add(_fill_template(AUGMENTED, run))
        return needed


def _fill_template(template: str, run: Run) -> str:
    """Fill a path template for a run, with `*` for the seed and the temperature."""
    variants = get_variants_folder(run.augmentation) if run.augmentation is not None else None
    return template.format(**(run.wildcards | {"seed": "*", "temperature": "*", "variants": variants}))


def _replace_seed(folder: str) -> str:
    """Replace the seed in a path by `*`."""
    return "/".join("seed=*" if part.startswith("seed=") else part for part in folder.split("/"))


# ---- the table of costs --------------------------------------------------------------------------------------


def sum_costs(jobs: Iterable[Job], tables: Mapping[str, Dependencies]) -> pd.DataFrame:
    """Sum the costs of jobs by table, stage and device, and of all jobs, each counted once.

    Args:
        jobs: all jobs (:func:`read_jobs`).
        tables: the dependencies of each table, by its name.

    Returns:
        A frame with the columns :data:`COLUMNS`: for each table, and for `all`, one row per stage and device, and one
        for all stages.
    """
    jobs = list(jobs)
    groups = {name: [job for job in jobs if needs.include(job)] for name, needs in tables.items()} | {ALL: jobs}
    rows = [row for name, members in groups.items() for row in _make_rows(name, members)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _make_rows(table: str, jobs: list[Job]) -> Iterator[dict[str, Any]]:
    kinds: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        kinds.setdefault((job.stage, job.device), []).append(job)
    rows = [_make_row(table, stage, device, members) for (stage, device), members in kinds.items()]
    yield from sorted(rows, key=lambda row: (-row["hours"], row["stage"], row["device"]))
    if jobs:
        yield _make_row(table, ALL, ALL, jobs)


def _make_row(table: str, stage: str, device: str, jobs: list[Job]) -> dict[str, Any]:
    memory = [job.memory / _MIB_PER_GIB for job in jobs if not math.isnan(job.memory)]
    return {
        "table": table,
        "stage": stage,
        "device": device,
        "jobs": len(jobs),
        "hours": _sum_known(job.seconds for job in jobs) / 3600,
        "cpu_hours": _sum_known(job.cpu_seconds for job in jobs) / 3600,
        "memory": max(memory, default=math.nan),
        "unknown": sum(math.isnan(job.seconds) for job in jobs),
    }


def _sum_known(values: Iterable[float]) -> float:
    return math.fsum(value for value in values if not math.isnan(value))


def lay_out_costs(frame: pd.DataFrame) -> Table:
    """Lay out the table of costs, with its notes.

    Args:
        frame: result of :func:`sum_costs`.
    """

    def make_text_column(heading: str, name: str) -> Column:
        values = [str(value) or "unknown" for value in frame[name]]
        return Column(heading, [escape_markdown(value) for value in values], list(values))

    def make_number_column(heading: str, name: str, decimals: int, unit: str = "") -> Column:
        values: list[float] = frame[name].astype("float64").tolist()
        least = 10**-decimals
        cells = [
            "" if math.isnan(value) else f"< {least:g}" if 0 < value < least / 2 else f"{value:.{decimals}f}"
            for value in values
        ]
        return Column(heading, cells, [None if math.isnan(value) else value for value in values], True, unit=unit)

    columns = [
        make_text_column("Table", "table"),
        make_text_column("Stage", "stage"),
        make_text_column("Device", "device"),
        make_number_column("Jobs", "jobs", 0),
        make_number_column("Wall clock", "hours", 2, "(h)"),
        make_number_column("Processors", "cpu_hours", 2, "(h)"),
        make_number_column("Peak memory", "memory", 1, "(GiB)"),
    ]
    notes = list(_NOTES)
    if frame["unknown"].any():
        columns.append(make_number_column("Unknown", "unknown", 0))
        notes.append("Unknown: finished jobs whose time was not recorded; no hours include them.")
    return Table(columns, (frame["stage"] == ALL).tolist(), notes)


_NOTES = (
    "A job on which several tables depend is counted in the rows of each, and once in those of all.",
    "Times and the memory of the host are those of the last attempt of each job; of a resumed training only the "
    "time since it was resumed counts.",
    "The device is that in the metrics.json that the job wrote or, if there is none, in that of its run's folder.",
)
