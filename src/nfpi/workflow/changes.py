"""Describe the settings that have changed since a job was last run, by their names in config.yaml."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

_PARAMS = r"""((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^'"])*?)"""
"""Pattern of params in a reason; string literals are matched as a whole, as they may contain ` now: ` or `; A`."""
_CHANGED_PARAMS = re.compile(
    rf"Params have changed since last execution: .*?before: {_PARAMS} now: {_PARAMS}(?=; [A-Z]|$)", re.DOTALL
)
_STRING_LITERAL = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
_BLOCKS = {
    "start_flow": "training",
    "train_flow": "training",
    "fit_prior": "priors.{prior}",
    "evaluate": "evaluation",
    "augment": "nfa",
    "train_classifier": "classifiers.{classifier}",
    "train_classifier_on_real": "classifiers.{classifier}",
    "prepare_data": "datasets.{dataset}",
    "encode_data": "datasets.{dataset}",
    "table": "tables.{table}",
    "judge_claims": "claims",
}
"""The block of config.yaml that a rule's settings in JSON are from; :func:`_find_block` adds `figures.{name}`,
`flows.{flow}`, the priors of trainings that learn them, and the tables of claims."""


def describe_reason(reason: str, rule: str, wildcards: Mapping[str, str]) -> str:
    """Rewrite Snakemake's reason for running a job, with changed settings in the form `training.epochs: 40 → 12`."""
    changes = find_changes(reason, rule, wildcards)
    if not changes:
        return reason
    found = _CHANGED_PARAMS.search(reason)
    assert found is not None
    before, now = (
        [text for text in _find_strings(part) if _find_block(rule, _parse_settings(text)) is None]
        for part in found.groups()
    )
    others = " and other params" if Counter(before) != Counter(now) else ""  # Snakemake lists them in any order
    return _CHANGED_PARAMS.sub(lambda _: f"Settings{others} have changed: {', '.join(changes)}", reason)


def find_changes(reason: str, rule: str, wildcards: Mapping[str, str]) -> list[str]:
    """List the changed settings in Snakemake's reason.

    The list is empty if the reason has no settings in JSON, or not equally many before and now.
    """
    found = _CHANGED_PARAMS.search(reason)
    if not found:
        return []
    before, now = (list(filter(None, map(_parse_settings, _find_strings(part)))) for part in found.groups())
    if len(before) != len(now):
        return []
    changes: list[str] = []
    for old in before:
        # Snakemake lists them in any order
        source = _find_block(rule, old)
        new = max(now, key=lambda other: (_find_block(rule, other) == source, len(old.keys() & other.keys())))
        now.remove(new)
        block = _find_block(rule, new)
        if block is not None:
            prefix = f"{block.format_map(_Wildcards(wildcards))}." if block else ""
            changes += list_differences(old, new, prefix)
    return list(dict.fromkeys(changes))


def _find_block(rule: str, settings: Mapping[str, Any]) -> str | None:
    """Return the block of config.yaml that a rule's settings are from.

    Returns:
        Name of the block; empty if the settings are named with their blocks, as in `{"nfa": {"axes": 64}}`; None if
        `settings` is empty, or holds file names or the rows of tables instead of settings.
    """
    if not settings:
        return None
    if "method" in settings:
        return "priors.{prior}"
    if rule.startswith("draw_"):
        values = list(settings.values())
        files = [name for value in values for name in (value if isinstance(value, list) else [value])]
        if all(isinstance(name, str) and "/" in name for name in files):
            return None
        return "" if all(isinstance(value, dict) for value in values) else f"figures.{rule.removeprefix('draw_')}"
    if rule == "judge_claims" and not any("comparisons" in value for value in settings.values()):
        return None if all(isinstance(value, list) for value in settings.values()) else "tables"
    block = _BLOCKS.get(rule, "")
    return "flows.{flow}" if block == "training" and "kind" in settings else block


class _Wildcards(dict[str, str]):
    """Wildcards of a job; a missing one is formatted as its name."""

    def __missing__(self, key: str) -> str:
        return key


def _find_strings(part: str) -> Iterator[str]:
    """Yield the values of the Python string literals in a text."""
    for found in _STRING_LITERAL.finditer(part):
        text = found[1] if found[1] is not None else found[2]
        yield text.replace("\\'", "'").replace('\\"', '"').replace("\\\\", "\\")


def _parse_settings(text: str) -> dict[str, Any]:
    """Parse a JSON object; empty if the text is anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def list_differences(old: Mapping[Any, Any], new: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield each setting that differs, as `name: old → new`, where the name begins with `prefix`."""
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        are_blocks = _is_list_of_blocks(before) and _is_list_of_blocks(now)
        if are_blocks and isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
            before, now = dict(enumerate(before)), dict(enumerate(now))
        if isinstance(before, dict) and isinstance(now, dict):
            yield from list_differences(before, now, f"{prefix}{key}.")
        elif before != now:
            yield f"{prefix}{key}: {_format_value(before)} → {_format_value(now)}"


def _is_list_of_blocks(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(block, dict) for block in value)


def _format_value(value: Any) -> str:
    if _is_list_of_blocks(value):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
