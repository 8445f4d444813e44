"""In what two folders of results differ: runs, settings, versions, numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfpi.results.found import FoundRun, find_runs
from nfpi.results.layout import metric_or_name


class CompareError(ValueError):
    """A folder without runs; the message is one line."""


@dataclass(frozen=True)
class Differences:
    """Rows of text, by what they are about.

    Attributes:
        runs: in one of the folders only, or with another status: run, first, second.
        settings: name, first, second, number of runs.
        software: packages, commit and device: name, first, second, number of runs.
        numbers: run, metric, first, second, second − first.
        common: how many runs are in both.
    """

    runs: list[list[str]]
    settings: list[list[str]]
    software: list[list[str]]
    numbers: list[list[str]]
    common: int


def compare_results(first: Path, second: Path, *, times: bool = False) -> Differences:
    """Compare the runs of two folders results/{preset} that have the same identity.

    Args:
        first, second: the folders.
        times: whether metrics in hours and seconds are compared too.

    Raises:
        CompareError: there is no run in one of them.
    """
    ours, theirs = _runs(first), _runs(second)
    common = [(ours[name], theirs[name]) for name in ours if name in theirs]
    return Differences(
        runs=_states(ours, theirs),
        settings=_counted(common, lambda item: item.settings),
        software=_counted(common, lambda item: item.software),
        numbers=[row for pair in common for row in _numbers(*pair, times)],
        common=len(common),
    )


def _runs(root: Path) -> dict[str, FoundRun]:
    found = {item.run.folder: item for item in find_runs(root)}
    if not found:
        raise CompareError(f"{root}: expected a folder results/{{preset}}, received one without a run")
    return found


def _states(ours: Mapping[str, FoundRun], theirs: Mapping[str, FoundRun]) -> list[list[str]]:
    """Runs that are missing in one folder, diverged in one, or are damaged."""
    rows = []
    for name in dict.fromkeys([*ours, *theirs]):
        states = [_state(found.get(name)) for found in (ours, theirs)]
        if states[0] != states[1] or "damaged" in states:
            rows.append([name, *states])
    return rows


def _state(found: FoundRun | None) -> str:
    if found is None:
        return "missing"
    return found.divergence or ("damaged" if found.fault else "there")


def _counted(
    common: Iterable[tuple[FoundRun, FoundRun]], values_of: Callable[[FoundRun], Mapping[str, str]]
) -> list[list[str]]:
    """Values that differ, and in how many runs they do so alike."""
    found: Counter[tuple[str, str, str]] = Counter()
    for pair in common:
        first, second = map(values_of, pair)
        if first and second:
            for name in dict.fromkeys([*first, *second]):
                values = first.get(name, ""), second.get(name, "")
                if values[0] != values[1]:
                    found[name, *values] += 1
    return [[*key, str(count)] for key, count in sorted(found.items())]


def _numbers(first: FoundRun, second: FoundRun, times: bool) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys([*first.metrics, *second.metrics]):
        entry = metric_or_name(name)
        values: Sequence[float | None] = (first.metrics.get(name), second.metrics.get(name))
        if values[0] == values[1] or (entry.is_time and not times):
            continue
        unit = f" ({entry.unit})" if entry.unit else ""
        digits = entry.decimals + 1
        texts = ["" if value is None else f"{value:.{digits}f}" for value in values]
        difference = "" if None in values else f"{values[1] - values[0]:+.{digits}f}"  # type: ignore[operator]
        rows.append([first.run.folder, f"{entry.label}{unit}", *texts, difference])
    return rows
