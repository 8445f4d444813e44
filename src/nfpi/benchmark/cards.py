"""GPUs by what bounds a computation on them: arithmetic, memory, and the host that starts operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nfpi.benchmark.counting import Counts

MULTIPLY = 0.5
"""Share of its peak that a card reaches in float32 and float64 products and convolutions."""
TENSOR_CORES = 0.35
"""The same in TF32 and bfloat16: the networks are narrow, 128 channels."""
BANDWIDTH = 0.75
"""Share of its memory bandwidth that element-wise operations and reductions reach."""
FITS = 0.85
"""Share of its memory that a step may keep; the rest is for the context, temporary results and fragments."""


@dataclass(frozen=True)
class Card:
    """One GPU and the processor beside it.

    Attributes:
        name: of the card.
        memory: GiB.
        bandwidth: bytes a second, the vendor's number.
        peaks: operations a second in each arithmetic (`float64`, `float32`, `tf32`, `bfloat16`), without sparsity.
        launch: seconds in which the host starts an operation, autograd included.
    """

    name: str
    memory: float
    bandwidth: float
    peaks: Mapping[str, float]
    launch: float

    @property
    def precisions(self) -> list[str]:
        """Those that a training may have on it."""
        return [name for name, arithmetic in PRECISIONS.items() if arithmetic in self.peaks]

    def seconds(self, counts: Counts, precision: str = "32-true") -> float:
        """Roofline: every operation takes its arithmetic or its memory traffic, whichever is longer.

        Where the host needs longer to start the operations than the card to carry them out, it is the host's time.
        """
        busy = sum(max(op.flops / self._rate(op.dtype, precision), op.bytes / self._moved) for op in counts.operations)
        return max(busy, len(counts.operations) * self.launch)

    @property
    def _moved(self) -> float:
        return self.bandwidth * BANDWIDTH

    def _rate(self, dtype: torch.dtype, precision: str) -> float:
        arithmetic = str(dtype).removeprefix("torch.")
        if arithmetic == "float32" and precision == "tf32":
            arithmetic = "tf32"
        share = TENSOR_CORES if arithmetic in ("tf32", "bfloat16") else MULTIPLY
        return self.peaks[arithmetic] * share


PRECISIONS = {"32-true": "float32", "tf32": "tf32", "bf16-mixed": "bfloat16"}
"""Precisions of trainings, with the arithmetic that each of them needs."""

CARDS = (
    Card("V100 32 GB", 32, 0.9e12, {"float64": 7.8e12, "float32": 15.7e12}, 8e-6),
    Card(
        "A100 80 GB",
        80,
        2.04e12,
        {"float64": 9.7e12, "float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
        7e-6,
    ),
    Card(
        "H100 80 GB",
        80,
        3.35e12,
        {"float64": 34e12, "float32": 67e12, "tf32": 495e12, "bfloat16": 989e12},
        6e-6,
    ),
)
"""Of SXM modules, by the vendor's data sheets; the launch times are those of eager PyTorch on such nodes, assumed."""
