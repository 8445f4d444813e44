"""Differences between the runs of one folder of results, and between two folders: settings, versions and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nfpi.config.metrics import find_metric
from nfpi.results.recorded.runs import RecordedRun, find_runs

# ---- within a folder -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingsOfKind:
    """Settings of all runs of one kind.

    Attributes:
        kind: name of the kind: data set and flow, or data set and classifier.
        runs: number of runs.
        shared: settings that are equal in all runs, with their values.
        differing: names of the other settings.
    """

    kind: str
    runs: int
    shared: list[tuple[str, str]]
    differing: list[str]


def compare_settings(recorded: Sequence[RecordedRun]) -> list[SettingsOfKind]:
    """Compare the settings of the runs of each kind, flows first."""
    kinds: dict[str, list[RecordedRun]] = {}
    for item in sorted(recorded, key=lambda item: item.run.classifier is not None):
        if item.settings:
            kinds.setdefault(describe_kind(item), []).append(item)
    compared = []
    for kind, members in kinds.items():
        names = dict.fromkeys(name for item in members for name in item.settings)
        values = {name: {item.settings.get(name) for item in members} for name in names}
        shared = [(name, str(*texts)) for name, texts in values.items() if len(texts) == 1]
        compared.append(SettingsOfKind(kind, len(members), shared, [name for name in names if len(values[name]) > 1]))
    return compared


def list_versions(recorded: Sequence[RecordedRun]) -> list[tuple[str, str]]:
    """Return the package versions, commits and devices of all runs, by name."""
    values: dict[str, dict[str, None]] = {}
    for item in recorded:
        for name, value in item.software.items():
            values.setdefault(name, {})[value] = None
    return [(name, ", ".join(texts)) for name, texts in values.items()]


def describe_kind(recorded: RecordedRun) -> str:
    """Return data set and flow of a run, or data set and classifier."""
    run = recorded.run
    return f"{run.dataset}, classifier {run.classifier}" if run.classifier else f"{run.dataset}, flow {run.flow}"


# ---- between two folders -------------------------------------------------------------------------------------


class CompareError(ValueError):
    """A folder without runs; the message is one line."""


@dataclass(frozen=True)
class Differences:
    """Differences between two folders, as rows of text.

    Attributes:
        runs: runs that are missing in one folder, damaged, or in different states; rows of run, first, second.
        settings: rows of name, first, second, number of runs.
        software: packages, commit and device; rows of name, first, second, number of runs.
        numbers: rows of run, metric, first, second, second − first.
        common: number of runs in both folders.
    """

    runs: list[list[str]]
    settings: list[list[str]]
    software: list[list[str]]
    numbers: list[list[str]]
    common: int


def compare_results(first: Path, second: Path, *, times: bool = False) -> Differences:
    """Compare runs of the same identity in two folders results/{preset}.

    Args:
        first, second: the folders.
        times: whether to compare metrics in hours and seconds too.

    Raises:
        CompareError: a folder has no runs.
    """
    first_runs, second_runs = _find_runs_by_folder(first), _find_runs_by_folder(second)
    common = [(first_runs[name], second_runs[name]) for name in first_runs if name in second_runs]
    return Differences(
        runs=_compare_states(first_runs, second_runs),
        settings=_count_differences(common, lambda item: item.settings),
        software=_count_differences(common, lambda item: item.software),
        numbers=[row for pair in common for row in _compare_metrics(*pair, times)],
        common=len(common),
    )


def _find_runs_by_folder(root: Path) -> dict[str, RecordedRun]:
    runs = {item.run.folder: item for item in find_runs(root)}
    if not runs:
        raise CompareError(f"{root}: expected a folder results/{{preset}}, received one without a run")
    return runs


def _compare_states(first: Mapping[str, RecordedRun], second: Mapping[str, RecordedRun]) -> list[list[str]]:
    """Return the runs whose states differ, or which are damaged."""
    rows = []
    for name in dict.fromkeys([*first, *second]):
        states = [runs[name].failure or "present" if name in runs else "missing" for runs in (first, second)]
        if states[0] != states[1] or "damaged" in states:
            rows.append([name, *states])
    return rows


def _count_differences(
    common: Iterable[tuple[RecordedRun, RecordedRun]], values_of: Callable[[RecordedRun], Mapping[str, str]]
) -> list[list[str]]:
    """Return each pair of values that differ, with the number of runs in which it occurs."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for pair in common:
        first, second = map(values_of, pair)
        if first and second:
            for name in dict.fromkeys([*first, *second]):
                values = first.get(name, ""), second.get(name, "")
                if values[0] != values[1]:
                    counts[name, *values] += 1
    return [[*key, str(count)] for key, count in sorted(counts.items())]


def _compare_metrics(first: RecordedRun, second: RecordedRun, times: bool) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys([*first.metrics, *second.metrics]):
        entry = find_metric(name)
        values: Sequence[float | None] = (first.metrics.get(name), second.metrics.get(name))
        if values[0] == values[1] or (entry.is_time and not times):
            continue
        unit = f" ({entry.unit})" if entry.unit else ""
        digits = entry.decimals + 1
        texts = ["" if value is None else f"{value:.{digits}f}" for value in values]
        difference = "" if None in values else f"{values[1] - values[0]:+.{digits}f}"  # type: ignore[operator]
        rows.append([first.run.folder, f"{entry.label}{unit}", *texts, difference])
    return rows
