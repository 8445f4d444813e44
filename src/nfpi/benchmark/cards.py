"""GPUs and the rates that bound a computation on them: arithmetic, memory, and launches by the host."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nfpi.benchmark.counting import Counts

PEAK_FRACTION = 0.5
"""Fraction of its peak that a card reaches in float32 and float64 products and convolutions."""
TENSOR_CORE_FRACTION = 0.35
"""Fraction of its peak that a card reaches in TF32 and bfloat16; low, as the networks are narrow (128 channels)."""
BANDWIDTH_FRACTION = 0.75
"""Fraction of a card's memory bandwidth that element-wise operations and reductions reach."""
MEMORY_FRACTION = 0.85
"""Fraction of a card's memory that a step may use; the rest is for CUDA's context, temporary results, fragmentation."""


@dataclass(frozen=True)
class Card:
    """One GPU, with the launch time of its host.

    Attributes:
        name: name of the card.
        memory: memory in GiB.
        bandwidth: memory bandwidth in bytes per second, by the vendor's data sheet.
        peaks: operations per second in each arithmetic that it supports (`float64`, `float32`, ...), see :data:`PEAKS`.
        launch: seconds that the host needs to launch an operation, autograd included.
    """

    name: str
    memory: float
    bandwidth: float
    peaks: Mapping[str, float]
    launch: float

    @property
    def precisions(self) -> list[str]:
        """Training precisions that the card supports."""
        return [name for name, arithmetic in PRECISIONS.items() if arithmetic in self.peaks]

    def estimate_seconds(self, counts: Counts, precision: str = "32-true") -> float:
        """Estimate the seconds that counted operations take, by a roofline model.

        Each operation takes as long as its arithmetic or its memory traffic, whichever is longer. The result is the sum
        over the operations, or the time that the host needs to launch them if that is longer.
        """
        busy = sum(
            max(op.flops / self._estimate_rate(op.dtype, precision), op.bytes / self._usable_bandwidth)
            for op in counts.operations
        )
        return max(busy, len(counts.operations) * self.launch)

    @property
    def _usable_bandwidth(self) -> float:
        return self.bandwidth * BANDWIDTH_FRACTION

    def _estimate_rate(self, dtype: torch.dtype, precision: str) -> float:
        arithmetic = str(dtype).removeprefix("torch.")
        if arithmetic == "float32" and precision == "tf32":
            arithmetic = "tf32"
        share = TENSOR_CORE_FRACTION if arithmetic in ("tf32", "bfloat16") else PEAK_FRACTION
        return self.peaks[arithmetic] * share


PRECISIONS = {"32-true": "float32", "tf32": "tf32", "bf16-mixed": "bfloat16"}
"""Precisions of a flow's training, with the arithmetic that each of them needs."""

PEAKS: Mapping[str, Mapping[str, float]] = {
    "V100-PCIE": {"float64": 7e12, "float32": 14e12, "float16": 112e12},
    "V100": {"float64": 7.8e12, "float32": 15.7e12, "float16": 125e12},
    "A100": {"float64": 9.7e12, "float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12, "float16": 312e12},
    "H100 PCIe": {"float64": 26e12, "float32": 51e12, "tf32": 378e12, "bfloat16": 756e12, "float16": 756e12},
    "H100": {"float64": 34e12, "float32": 67e12, "tf32": 495e12, "bfloat16": 989e12, "float16": 989e12},
    "H200": {"float64": 34e12, "float32": 67e12, "tf32": 495e12, "bfloat16": 989e12, "float16": 989e12},
}
"""Operations per second in each arithmetic without sparsity, by the vendor's data sheets; SXM modules unless named
otherwise."""

CARDS = (
    Card("V100 32 GB", 32, 0.9e12, PEAKS["V100"], 8e-6),
    Card("A100 80 GB", 80, 2.04e12, PEAKS["A100"], 7e-6),
    Card("H100 80 GB", 80, 3.35e12, PEAKS["H100"], 6e-6),
)
"""SXM modules, by the vendor's data sheets; the launch times are assumptions for eager PyTorch."""


def find_peak(name: str, precision: str) -> float | None:
    """Return the peak of a card in a precision, in operations per second; None if it is unknown.

    The peaks of NVL, V100S and V100 FHHL cards are unknown too, as they differ from the SXM modules of the same name,
    and so are those of parts of a card (MIG, GRID).

    Args:
        name: name of the card as the driver gives it, such as `NVIDIA H100 80GB HBM3`.
        precision: training precision: one of :data:`PRECISIONS`, or `16-mixed`.
    """
    words = set(re.split(r"[\s-]", name))
    if {"NVL", "V100S", "FHHL", "MIG", "GRID"} & words:
        return None
    arithmetic = "float16" if precision == "16-mixed" else PRECISIONS[precision]
    found = (peaks for part, peaks in PEAKS.items() if words.issuperset(re.split(r"[\s-]", part)))
    return next(found, {}).get(arithmetic)
