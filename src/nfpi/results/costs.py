"""Cost of the jobs by stage: wall-clock time, processor time and memory, from Snakemake's benchmarks/."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from nfpi.results.numbers import format_duration
from nfpi.results.recorded.calls import read_benchmark
from nfpi.results.tables.markup import TextTable, make_number_column, make_text_column
from nfpi.runs import BENCHMARKS_FOLDER

ALL = "all"
"""Name of the row that sums over all stages."""

_MIB_PER_GIB = 1024


def read_jobs(root: Path) -> pd.DataFrame:
    """Read the cost of all jobs of results/{preset} that Snakemake has run.

    Returns:
        A frame with the stage, wall-clock and processor time in hours, and the maximum resident memory in GiB; unknown
        numbers are NaN.
    """
    rows = []
    for path in (root / BENCHMARKS_FOLDER).glob("**/*.tsv"):
        measured = read_benchmark(path)
        seconds, cpu_seconds, memory = (measured.get(name, math.nan) for name in ("s", "cpu_time", "max_rss"))
        rows.append((path.stem, seconds / 3600, cpu_seconds / 3600, memory / _MIB_PER_GIB))
    return pd.DataFrame(rows, columns=["stage", "hours", "cpu_hours", "memory"])


def lay_out_costs(jobs: pd.DataFrame) -> TextTable:
    """Lay out the costs of the stages, the longest first, and of all jobs, with notes.

    Args:
        jobs: all jobs (:func:`read_jobs`).
    """
    by_stage = _sum(jobs).sort_values(["hours", "stage"], ascending=[False, True])
    frame = pd.concat([by_stage, _sum(jobs.assign(stage=ALL))], ignore_index=True)
    columns = [
        make_text_column("Stage", frame["stage"]),
        make_number_column("Jobs", frame["jobs"], "{:.0f}".format),
        make_number_column("Wall clock", frame["hours"], _format_hours),
        make_number_column("Processors", frame["cpu_hours"], _format_hours),
        make_number_column("Peak memory", frame["memory"], "{:.1f}".format, unit="GiB"),
    ]
    notes = list(_NOTES)
    if frame["unknown"].any():
        columns.append(make_number_column("Unknown", frame["unknown"], "{:.0f}".format))
        notes.append("Unknown: jobs whose time was not recorded; no hours include them.")
    return TextTable(columns, (frame["stage"] == ALL).tolist(), notes)


def _sum(jobs: pd.DataFrame) -> pd.DataFrame:
    """Sum the jobs of each stage; `memory` is their maximum, and `unknown` the number of jobs of unknown time."""
    sums = jobs.assign(unknown=jobs["hours"].isna()).groupby("stage", as_index=False)
    return sums.agg(
        jobs=("hours", "size"),
        hours=("hours", "sum"),
        cpu_hours=("cpu_hours", "sum"),
        memory=("memory", "max"),
        unknown=("unknown", "sum"),
    )


def _format_hours(hours: float) -> str:
    return format_duration(3600 * hours)


_NOTES = (
    "A stage that was run by hand, not by snakemake, is not counted.",
    "Times and the memory of the host are those of the last attempt of each job; of a resumed training only the "
    "time since it was resumed counts.",
)
