"""How long jobs took, as Snakemake notes it in benchmarks/."""

from __future__ import annotations

import csv
import math
from pathlib import Path


def read_times(root: Path) -> dict[str, list[float]]:
    """Seconds of the last run of every job below a folder results/{preset}, by the stem of its file.

    Files that are damaged are passed over.
    """
    found: dict[str, list[float]] = {}
    for path in sorted((root / "benchmarks").glob("**/*.tsv")):
        seconds = read_seconds(path)
        if seconds is not None:
            found.setdefault(path.stem, []).append(seconds)
    return found


def read_seconds(path: Path) -> float | None:
    """Seconds of the last run of a job; None: they are not known."""
    return read_benchmark(path).get("s")


def read_benchmark(path: Path) -> dict[str, float]:
    """What was measured of the last run of a job, by the names of Snakemake's columns: `s` seconds, `max_rss` MB, ...

    What is not known is missing: Snakemake writes NA for jobs that were too short. So is all of a damaged file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, ValueError, csv.Error):
        return {}
    return {name: value for name, cell in rows[-1].items() if (value := _number(cell)) is not None} if rows else {}


def _number(cell: object) -> float | None:
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
