"""Costs of the stages on a page, from Snakemake's benchmarks of their jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nfpi.results.costs import read_jobs
from nfpi.results.tables.layout import Column, Table

_MIB_PER_GIB = 1024
_SHOWN_IN_MINUTES = 2 * 3600
"""Seconds below which the time of all jobs is shown in minutes."""


@dataclass(frozen=True)
class Cost:
    """Costs of the jobs of one stage.

    Attributes:
        stage: name of the rule.
        jobs: number of jobs.
        seconds: total time.
        longest: time of the longest job, in seconds.
        memory: maximum memory of a job, in MiB.
    """

    stage: str
    jobs: int
    seconds: float
    longest: float
    memory: float


def read_costs(root: Path) -> list[Cost]:
    """Read the costs of the stages, in decreasing order of total time, without jobs of unknown time or memory."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for job in read_jobs(root):
        if not math.isnan(job.seconds) and not math.isnan(job.memory):
            measured.setdefault(job.stage, []).append((job.seconds, job.memory))
    costs = [
        Cost(stage, len(jobs), sum(s for s, _ in jobs), max(s for s, _ in jobs), max(memory for _, memory in jobs))
        for stage, jobs in measured.items()
    ]
    return sorted(costs, key=lambda cost: -cost.seconds)


def lay_out_costs(costs: list[Cost]) -> Table:
    """Lay out the costs as a table, with e.g. `< 0.1` for positive values that would be rounded to zero."""

    def make_numeric_column(heading: str, unit: str, values: list[float], decimals: int) -> Column:
        least = 10**-decimals
        cells = [f"&lt; {least:g}" if 0 < value < least / 2 else f"{value:.{decimals}f}" for value in values]
        return Column(heading, cells, list(values), is_numeric=True, unit=unit)

    is_short = sum(cost.seconds for cost in costs) < _SHOWN_IN_MINUTES
    total = [cost.seconds / (60 if is_short else 3600) for cost in costs]
    stages = [cost.stage for cost in costs]
    columns = [
        Column("Stage", stages, list(stages)),
        make_numeric_column("Jobs", "", [cost.jobs for cost in costs], 0),
        make_numeric_column("All jobs", "(min)" if is_short else "(h)", total, 1 if is_short else 2),
        make_numeric_column("Longest job", "(min)", [cost.longest / 60 for cost in costs], 1),
        make_numeric_column("Most memory", "(GiB)", [cost.memory / _MIB_PER_GIB for cost in costs], 1),
    ]
    return Table(columns, [False] * len(costs), ["Wall-clock time of the last run of each job."])
