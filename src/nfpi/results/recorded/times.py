"""Durations of jobs, from Snakemake's benchmarks/, and their text."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from nfpi.runs import BENCHMARKS_FOLDER

_MEASURED = ("s", "cpu_time", "max_rss")
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


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


def format_duration(seconds: float) -> str:
    """Format a duration in its largest unit, and also in the next smaller one if the largest has fewer than 10 units:
    `8 s`, `2 min 5 s`, `20 h`.
    """
    if seconds < 0.5:
        return "< 1 s"
    seconds = max(1, round(seconds))
    for index, (unit, size) in enumerate(_UNITS):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            smaller, smaller_size = _UNITS[index + 1] if index + 1 < len(_UNITS) else ("s", 1)
            text, more = f"{whole} {unit}", rest // smaller_size
            return f"{text} {more} {smaller}" if whole < 10 and more else text
    return f"{seconds} s"
