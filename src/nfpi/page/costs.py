"""What the stages took, from the times that Snakemake notes of its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nfpi.results.costs import read_jobs
from nfpi.results.layout import Column, Table

_MEGABYTES_A_GIGABYTE = 1024
_SHORT = 2 * 3600
"""Seconds up to which the time of all jobs is given in minutes."""


@dataclass(frozen=True)
class Cost:
    """What the jobs of one stage took.

    Attributes:
        stage: name of the rule.
        jobs: how many there were.
        seconds: of all, one after the other.
        longest: of one, in seconds.
        memory: the largest of one, in MB.
    """

    stage: str
    jobs: int
    seconds: float
    longest: float
    memory: float


def read_costs(root: Path) -> list[Cost]:
    """What the stages took, the longest first; jobs whose time or memory is not known are left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    for job in read_jobs(root):
        if not math.isnan(job.seconds) and not math.isnan(job.memory):
            found.setdefault(job.stage, []).append((job.seconds, job.memory))
    costs = [
        Cost(stage, len(jobs), sum(s for s, _ in jobs), max(s for s, _ in jobs), max(memory for _, memory in jobs))
        for stage, jobs in found.items()
    ]
    return sorted(costs, key=lambda cost: -cost.seconds)


def cost_table(costs: list[Cost]) -> Table:
    """Return the same as a table, for people; what would be rounded to zero is `< 0.1`."""

    def numbers(heading: str, unit: str, values: list[float], decimals: int) -> Column:
        least = 10**-decimals
        cells = [f"&lt; {least:g}" if 0 < value < least / 2 else f"{value:.{decimals}f}" for value in values]
        return Column(heading, cells, list(values), is_numeric=True, unit=unit)

    is_short = sum(cost.seconds for cost in costs) < _SHORT
    total = [cost.seconds / (60 if is_short else 3600) for cost in costs]
    stages = [cost.stage for cost in costs]
    columns = [
        Column("Stage", stages, list(stages)),
        numbers("Jobs", "", [cost.jobs for cost in costs], 0),
        numbers("All jobs", "(min)" if is_short else "(h)", total, 1 if is_short else 2),
        numbers("Longest job", "(min)", [cost.longest / 60 for cost in costs], 1),
        numbers("Most memory", "(GB)", [cost.memory / _MEGABYTES_A_GIGABYTE for cost in costs], 1),
    ]
    return Table(columns, [False] * len(costs), ["Wall-clock time of the last run of each job."])
