"""Cost of the jobs that tables depend on: wall-clock time, processor time and memory, from Snakemake's benchmarks/."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from nfpi.results.numbers import format_duration
from nfpi.results.recorded.calls import read_benchmark
from nfpi.results.tables.markup import TextTable, make_number_column, make_text_column
from nfpi.runs import BENCHMARKS_FOLDER

COLUMNS = {
    "table": "str",
    "stage": "str",
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
"""Entry in the rows that sum over all tables or stages."""

_MIB_PER_GIB = 1024


def read_jobs(root: Path) -> pd.DataFrame:
    """Read the cost of all jobs of results/{preset} that Snakemake has run, sorted by folder.

    Returns:
        A frame with the stage, the folder that the benchmark is named after, relative to `root`, wall-clock and
        processor time in hours, and the maximum resident memory in GiB; unknown numbers are NaN.
    """
    rows = []
    for path in (root / BENCHMARKS_FOLDER).glob("**/*.tsv"):
        folder = path.parent.relative_to(root / BENCHMARKS_FOLDER).as_posix()
        measured = read_benchmark(path)
        seconds, cpu_seconds, memory = (measured.get(name, math.nan) for name in ("s", "cpu_time", "max_rss"))
        rows.append((path.stem, folder, seconds / 3600, cpu_seconds / 3600, memory / _MIB_PER_GIB))
    jobs = pd.DataFrame(rows, columns=["stage", "folder", "hours", "cpu_hours", "memory"])
    return jobs.sort_values(["folder", "stage"], ignore_index=True)


# ---- the table of costs --------------------------------------------------------------------------------------


def sum_costs(jobs: pd.DataFrame, tables: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """Sum the costs of jobs by table and stage, and of all jobs, each counted once.

    Args:
        jobs: all jobs (:func:`read_jobs`).
        tables: the jobs that each table depends on, as `folder/stage`, by its name.

    Returns:
        A frame with the columns :data:`COLUMNS`: for each table, and for `all`, one row per stage, and one for all
        stages.
    """
    names, parts = jobs["folder"] + "/" + jobs["stage"], []
    for table, needed in {**tables, ALL: names}.items():
        of_table = jobs[names.isin(list(needed))]
        by_stage = _sum(of_table, table).sort_values(["hours", "stage"], ascending=[False, True])
        parts += [by_stage, _sum(of_table.assign(stage=ALL), table)]
    return pd.concat([pd.DataFrame(columns=list(COLUMNS)), *parts], ignore_index=True).astype(COLUMNS)


def _sum(jobs: pd.DataFrame, table: str) -> pd.DataFrame:
    sums = jobs.assign(unknown=jobs["hours"].isna()).groupby("stage", as_index=False)
    return sums.agg(
        jobs=("folder", "size"),
        hours=("hours", "sum"),
        cpu_hours=("cpu_hours", "sum"),
        memory=("memory", "max"),
        unknown=("unknown", "sum"),
    ).assign(table=table)


def lay_out_costs(frame: pd.DataFrame) -> TextTable:
    """Lay out the table of costs, with its notes.

    Args:
        frame: result of :func:`sum_costs`.
    """
    names = ["table", "stage"] if frame["table"].nunique() > 1 else ["stage"]
    columns = [
        *(make_text_column(name.capitalize(), frame[name]) for name in names),
        make_number_column("Jobs", frame["jobs"], "{:.0f}".format),
        make_number_column("Wall clock", frame["hours"], _format_hours),
        make_number_column("Processors", frame["cpu_hours"], _format_hours),
        make_number_column("Peak memory", frame["memory"], "{:.1f}".format, unit="GiB"),
    ]
    notes = list(_NOTES)
    if "table" in names:
        notes.append("A job on which several tables depend is counted in the rows of each, and once in those of all.")
    if frame["unknown"].any():
        columns.append(make_number_column("Unknown", frame["unknown"], "{:.0f}".format))
        notes.append("Unknown: jobs whose time was not recorded; no hours include them.")
    return TextTable(columns, (frame["stage"] == ALL).tolist(), notes)


def _format_hours(hours: float) -> str:
    return format_duration(3600 * hours)


_NOTES = (
    "A stage that was run by hand, not by snakemake, is not counted.",
    "Times and the memory of the host are those of the last attempt of each job; of a resumed training only the "
    "time since it was resumed counts.",
)
