"""Numbers as texts: measurements, λ and durations."""

from __future__ import annotations

import math
from decimal import Decimal

from nfpi.config.metrics import Metric
from nfpi.runs import format_weight

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))
"""Units of durations, with their seconds."""


def format_number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Format a number with a minus sign instead of a hyphen, never `−0.0`; `signed`: with a plus sign, too."""
    return "" if math.isnan(value) else f"{value:{'+' if signed else ''}z.{decimals}f}".replace("-", "−")


def format_measurement(value: float, entry: Metric, images: int | None = None) -> str:
    """Format a value with its unit, e.g. `94.2 %`."""
    return format_number(value, count_decimals(entry, images)) + (f" {entry.unit}" if entry.unit else "")


def count_decimals(entry: Metric, images: int | None) -> int:
    """Return the number of decimals of a value; an accuracy has only as many as show a difference of one image."""
    if not entry.is_share or not images:
        return entry.decimals
    return min(entry.decimals, max(0, math.ceil(math.log10(images / 100))))


def typeset_weight(weight: float) -> str:
    """Format λ: 0, 500, 10³, 7.5·10⁶."""
    mantissa, exponent = split_weight(weight)
    if exponent == 0:
        return mantissa
    return ("" if mantissa == "1" else f"{mantissa}·") + "10" + str(exponent).translate(_SUPERSCRIPTS)


def split_weight(weight: float) -> tuple[str, int]:
    """Split λ exactly into (mantissa, exponent): 30000 → ("3", 4); unchanged in [0.01, 1000): 500 → ("500", 0)."""
    if weight == 0 or 1e-2 <= weight < 1e3:
        return format_weight(weight), 0
    _, digits, exponent = Decimal(repr(float(weight))).normalize().as_tuple()
    mantissa = str(digits[0]) + ("." + "".join(map(str, digits[1:])) if len(digits) > 1 else "")
    return mantissa, int(exponent) + len(digits) - 1


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
