"""Settings, versions and devices of the runs on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nfpi.results.recorded.runs import RecordedRun


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
            kinds.setdefault(_describe_kind(item), []).append(item)
    compared = []
    for kind, members in kinds.items():
        names = dict.fromkeys(name for item in members for name in item.settings)
        values = {name: {item.settings.get(name) for item in members} for name in names}
        shared = [(name, str(*texts)) for name, texts in values.items() if len(texts) == 1]
        compared.append(SettingsOfKind(kind, len(members), shared, [name for name in names if len(values[name]) > 1]))
    return compared


def list_differing_settings(recorded: RecordedRun, kinds: Sequence[SettingsOfKind]) -> list[tuple[str, str]]:
    """Return the settings in which a run differs from others of its kind."""
    names = {name for kind in kinds if kind.kind == _describe_kind(recorded) for name in kind.differing}
    return [(name, value) for name, value in recorded.settings.items() if name in names]


def list_versions(recorded: Sequence[RecordedRun]) -> list[tuple[str, str]]:
    """Return the package versions, commits and devices of all runs, by name."""
    values: dict[str, dict[str, None]] = {}
    for item in recorded:
        for name, value in item.software.items():
            values.setdefault(name, {})[value] = None
    return [(name, ", ".join(texts)) for name, texts in values.items()]


def _describe_kind(recorded: RecordedRun) -> str:
    run = recorded.run
    return f"{run.dataset}, classifier {run.classifier}" if run.classifier else f"{run.dataset}, flow {run.flow}"
