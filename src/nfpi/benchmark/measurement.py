"""One line of the benchmark, and the timing of both sides of its ratio.

Both sides run alternately, and the ratio is that of their medians, so that a busy machine slows down both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from nfpi.runtime.devices import describe_device


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
    theirs: float | None
    ratio: float | None
    unit: str
    target: str


def compare_times(
    name: str, reference: str, ours: float, theirs: float, target: str, *, larger_is_better: bool = False
) -> Measurement:
    """Return the line that compares two times in seconds.

    Args:
        name, reference, ours, theirs, target: see :class:`Measurement`.
        larger_is_better: whether the ratio is theirs / ours, instead of ours / theirs.
    """
    ratio = theirs / ours if larger_is_better else ours / theirs
    return Measurement(name, reference, ours, theirs, ratio, "s", target)


def measure_medians(device: torch.device, repeats: int, *sides: Callable[[], object]) -> list[float]:
    """Measure the median seconds of each side; the sides run alternately, after a warm-up run of each."""
    times: list[list[float]] = [[] for _ in sides]
    for round_ in range(repeats + 1):
        for side, its_times in zip(sides, times, strict=True):
            synchronize(device)
            began = time.perf_counter()
            side()
            synchronize(device)
            if round_:
                its_times.append(time.perf_counter() - began)
    return [statistics.median(its_times) for its_times in times]


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def format_table(measurements: Sequence[Measurement], device: torch.device, repeats: int) -> str:
    """Format the lines as a Markdown table, under a line that describes the machine."""
    lines = [
        f"Medians of {repeats} runs (at most 3 of a start-up, one of the fit of K = 1000), alternating; "
        f"{describe_device(device)}, torch {torch.__version__}.",
        "",
        "| what | compared with | ours | other | ratio | target |",
        "| :--- | :--- | ---: | ---: | ---: | :--- |",
    ]
    for m in measurements:
        ratio = "" if m.ratio is None else f"{m.ratio:.2f}×"
        ours, theirs = _format_amount(m.ours, m.unit), _format_amount(m.theirs, m.unit)
        lines.append(f"| {m.name} | {m.reference} | {ours} | {theirs} | {ratio} | {m.target} |")
    return "\n".join(lines) + "\n"


def _format_amount(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "s":
        return f"{1e3 * value:.2f} ms"
    return f"{value:.0f}" if unit == "operations" else f"{value:.2f} {unit}"
