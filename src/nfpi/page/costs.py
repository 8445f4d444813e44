"""What the stages took, from the times that Snakemake notes of its jobs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    """What the stages took, the longest first; files that are damaged are passed over."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(root.glob("benchmarks/**/*.tsv")):
        found.setdefault(path.stem, []).extend(_times(path))
    costs = [
        Cost(stage, len(jobs), sum(s for s, _ in jobs), max(s for s, _ in jobs), max(memory for _, memory in jobs))
        for stage, jobs in found.items()
        if jobs
    ]
    return sorted(costs, key=lambda cost: -cost.seconds)


def cost_table(costs: list[Cost]) -> Table:
    """The same as a table, for people."""

    def numbers(heading: str, unit: str, values: list[float], decimals: int) -> Column:
        cells = [f"{value:.{decimals}f}" for value in values]
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


def _times(path: Path) -> Iterator[tuple[float, float]]:
    """Seconds and MB of a job, of its last run."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        if rows:
            yield float(rows[-1]["s"]), float(rows[-1]["max_rss"])
    except (OSError, ValueError, KeyError, TypeError):  # Snakemake writes NA for jobs that were too short
        return
