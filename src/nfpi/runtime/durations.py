"""Names of :mod:`nfpi.results.recorded.times`."""

_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def format_duration(seconds: float) -> str:
    """See :func:`nfpi.results.recorded.times.format_duration`."""
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
