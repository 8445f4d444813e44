"""Medians of times, and the lines of the benchmark that compare them with named references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.utils.benchmark

_SECONDS = 0.2
"""shortest time over which a side is timed in each round; a short computation is repeated"""


@dataclass(frozen=True)
class Measurement:
    """One line of the benchmark.

    Attributes:
        name: what is measured.
        reference: what it is compared with.
        ours, theirs: median seconds, or amounts in `unit`; theirs is None without a reference.
        ratio: theirs / ours where `target` says "at least", otherwise ours / theirs; None: no ratio.
        unit: s, GiB, GB, or operations.
        target: target of the ratio, or of `ours` where there is no ratio.
    """

    name: str
    reference: str
    ours: float
    theirs: float | None = None
    ratio: float | None = None
    unit: str = "s"
    target: str = ""

    def format(self) -> str:
        """Return the line as a row of a Markdown table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}×"
        amounts = [_format_amount(value, self.unit) for value in (self.ours, self.theirs)]
        return "| " + " | ".join([self.name, self.reference, *amounts, ratio, self.target]) + " |"


def _format_amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s":
        return f"{1e3 * value:.2f} ms"
    return f"{value:.0f}" if unit == "operations" else f"{value:.2f} {unit}"


def compare_times(name: str, reference: str, ours: float, theirs: float, target: str) -> Measurement:
    """Return the line that compares two times in seconds, with the ratio of which the target speaks."""
    ratio = theirs / ours if target.startswith("at least") else ours / theirs
    return Measurement(name, reference, ours, theirs, ratio, "s", target)


def measure_medians(rounds: int, *sides: Callable[[], object]) -> list[float]:
    """Measure the median seconds of each side; the sides run in turn, so that a busy machine slows down all of them.

    In each round, a side runs once before its time counts, and waits for a GPU to finish.
    """
    timers = [
        torch.utils.benchmark.Timer("side()", globals={"side": side}, num_threads=torch.get_num_threads())
        for side in sides
    ]
    found = [[timer.blocked_autorange(min_run_time=_SECONDS) for timer in timers] for _ in range(rounds)]
    return [_find_median([one[side] for one in found]) for side in range(len(sides))]


def _find_median(rounds: list[torch.utils.benchmark.Measurement]) -> float:
    (merged,) = torch.utils.benchmark.Measurement.merge(rounds)
    return merged.median
