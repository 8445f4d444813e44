"""Human-readable durations."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


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
