"""Durations of jobs, from Snakemake's benchmarks/."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from nfpi.runs import BENCHMARKS_FOLDER


def read_times(root: Path) -> dict[str, list[float]]:
    """Return the seconds of the last execution of every job in a folder results/{preset}, by the stem of its file.

    Damaged files are skipped.
    """
    times: dict[str, list[float]] = {}
    for path in sorted((root / BENCHMARKS_FOLDER).glob("**/*.tsv")):
        seconds = read_seconds(path)
        if seconds is not None:
            times.setdefault(path.stem, []).append(seconds)
    return times


def read_seconds(path: Path) -> float | None:
    """Return the seconds of the last execution of a job; None if unknown."""
    return read_benchmark(path).get("s")


def read_benchmark(path: Path) -> dict[str, float]:
    """Read the measurements of the last execution of a job, by Snakemake's columns: `s` seconds, `max_rss` MB, ...

    Unknown values are left out (Snakemake writes NA for very short jobs); the result is empty for a damaged file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, ValueError, csv.Error):
        return {}
    return (
        {name: value for name, cell in rows[-1].items() if (value := _parse_number(cell)) is not None} if rows else {}
    )


def _parse_number(cell: object) -> float | None:
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
