"""Cost of the jobs that tables depend on: wall-clock time, processor time and memory, from Snakemake's benchmarks/."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from nfpi.results.recorded.records import MetricsError, read_record
from nfpi.results.recorded.times import format_duration, read_benchmark
from nfpi.results.tables.table import Table, make_number_column, make_text_column
from nfpi.runs import (
    AUGMENTED,
    BENCHMARKS_FOLDER,
    COMMON_SPLITS,
    FLOW_RUN,
    GENERATED,
    INITIAL,
    METRICS_FILE,
    TRAINED_CLASSIFIER,
    Run,
    get_variants_folder,
)

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
"""Columns of the table of costs and their types.

`memory` is the maximum over the jobs, in GiB, and `unknown` the number of jobs of unknown time.
"""

ALL = "all"
"""Entry in the rows that sum over all tables, stages or devices."""

_TRAINED = TRAINED_CLASSIFIER.rpartition("/")[2]
_MIB_PER_GIB = 1024


def read_jobs(root: Path) -> pd.DataFrame:
    """Read the cost of all jobs of results/{preset} that Snakemake has run, sorted by folder.

    Returns:
        A frame with the stage, the folder that the benchmark is named after, relative to `root`, wall-clock and
        processor time in hours, the maximum resident memory in GiB, and the device; unknown numbers are NaN, and an
        unknown device is empty.
    """
    rows = []
    devices: dict[str, str] = {}
    for path in (root / BENCHMARKS_FOLDER).glob("**/*.tsv"):
        folder = path.parent.relative_to(root / BENCHMARKS_FOLDER).as_posix()
        measured = read_benchmark(path)
        seconds, cpu_seconds, memory = (measured.get(name, math.nan) for name in ("s", "cpu_time", "max_rss"))
        numbers = (seconds / 3600, cpu_seconds / 3600, memory / _MIB_PER_GIB)
        rows.append((path.stem, folder, *numbers, _find_device(root, folder, path.stem, devices)))
    jobs = pd.DataFrame(rows, columns=["stage", "folder", "hours", "cpu_hours", "memory", "device"])
    return jobs.sort_values(["folder", "stage"], ignore_index=True)


def _find_device(root: Path, folder: str, stage: str, known: dict[str, str]) -> str:
    """Return the device in the metrics that a job wrote, or else in those of its folder, its parent or grandparent."""
    place = PurePosixPath(folder)
    # on real images, training and test of a classifier have a metrics.json each
    own = [place / _TRAINED] if stage == "train_classifier" else []
    for candidate in (*own, place, *place.parents[:2]):
        name = candidate.as_posix()
        if name not in known:
            try:
                known[name] = str(read_record(root / name / METRICS_FILE).get("device") or "")
            except (MetricsError, OSError):
                known[name] = ""
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

    def include(self, folder: str, stage: str) -> bool:
        """Return whether the table depends on the job of a stage in a folder."""
        folder = _replace_seed(folder)
        if (folder, stage) in self._jobs:
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


def sum_costs(jobs: pd.DataFrame, tables: Mapping[str, Dependencies]) -> pd.DataFrame:
    """Sum the costs of jobs by table, stage and device, and of all jobs, each counted once.

    Args:
        jobs: all jobs (:func:`read_jobs`).
        tables: the dependencies of each table, by its name.

    Returns:
        A frame with the columns :data:`COLUMNS`: for each table, and for `all`, one row per stage and device, and one
        for all stages.
    """
    parts = []
    for name, needs in tables.items():
        is_needed = [needs.include(*pair) for pair in zip(jobs["folder"], jobs["stage"], strict=True)]
        parts += _sum_by_stage(name, jobs[np.array(is_needed, dtype=bool)])
    parts += _sum_by_stage(ALL, jobs)
    return pd.concat([pd.DataFrame(columns=list(COLUMNS)), *parts], ignore_index=True).astype(COLUMNS)


def _sum_by_stage(table: str, jobs: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the sums by stage and device, in decreasing order of time, and the sum of both."""
    by_stage = _sum(jobs, table).sort_values(["hours", "stage", "device"], ascending=[False, True, True])
    return [by_stage, _sum(jobs.assign(stage=ALL, device=ALL), table)]


def _sum(jobs: pd.DataFrame, table: str) -> pd.DataFrame:
    sums = jobs.assign(unknown=jobs["hours"].isna()).groupby(["stage", "device"], as_index=False)
    return sums.agg(
        jobs=("folder", "size"),
        hours=("hours", "sum"),
        cpu_hours=("cpu_hours", "sum"),
        memory=("memory", "max"),
        unknown=("unknown", "sum"),
    ).assign(table=table)


def lay_out_costs(frame: pd.DataFrame) -> Table:
    """Lay out the table of costs, with its notes.

    Args:
        frame: result of :func:`sum_costs`.
    """
    names = ["table", "stage", "device"] if frame["table"].nunique() > 1 else ["stage", "device"]
    columns = [
        *(make_text_column(name.capitalize(), frame[name].replace("", "unknown")) for name in names),
        make_number_column("Jobs", frame["jobs"], 0),
        make_number_column("Wall clock", frame["hours"], _format_hours),
        make_number_column("Processors", frame["cpu_hours"], _format_hours),
        make_number_column("Peak memory", frame["memory"], 1, unit="GiB"),
    ]
    notes = list(_NOTES)
    if "table" in names:
        notes.append("A job on which several tables depend is counted in the rows of each, and once in those of all.")
    if frame["unknown"].any():
        columns.append(make_number_column("Unknown", frame["unknown"], 0))
        notes.append("Unknown: jobs whose time was not recorded; no hours include them.")
    return Table(columns, (frame["stage"] == ALL).tolist(), notes)


def _format_hours(hours: float) -> str:
    return format_duration(3600 * hours)


_NOTES = (
    "A stage that was run by hand, not by snakemake, is not counted.",
    "Times and the memory of the host are those of the last attempt of each job; of a resumed training only the "
    "time since it was resumed counts.",
    "The device is that in the metrics.json that the job wrote or, if there is none, in that of its run's folder.",
)
