"""Peak speeds of cards, from their data sheets."""

from __future__ import annotations

_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    ("V100", {"32-true": 15.7, "16-mixed": 125}),
    ("A100", {"32-true": 19.5, "tf32": 156, "bf16-mixed": 312, "16-mixed": 312}),
    ("H100 PCIe", {"32-true": 51, "tf32": 378, "bf16-mixed": 756, "16-mixed": 756}),
    ("H100", {"32-true": 67, "tf32": 495, "bf16-mixed": 989, "16-mixed": 989}),
    ("H200", {"32-true": 67, "tf32": 495, "bf16-mixed": 989, "16-mixed": 989}),
)
"""TFLOP/s of dense products by part of the card's name; the first match counts."""


def peak_flops(card: str, precision: str) -> float | None:
    """Return the peak FLOP/s of a card in a precision; None: not known."""
    for part, peaks in _PEAKS:
        if all(word in card for word in part.split()):
            return peaks[precision] * 1e12 if precision in peaks else None
    return None
