"""Describe changed settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard


def list_differences(old: Mapping[Any, Any], new: Mapping[Any, Any], prefix: str = "") -> Iterator[str]:
    """Yield each setting that differs, as `name: old → new`, where the name begins with `prefix`."""
    for key in dict.fromkeys([*old, *new]):
        before, now = old.get(key), new.get(key)
        if _is_list_of_blocks(before) and _is_list_of_blocks(now) and len(before) == len(now):
            before, now = dict(enumerate(before)), dict(enumerate(now))
        if isinstance(before, dict) and isinstance(now, dict):
            yield from list_differences(before, now, f"{prefix}{key}.")
        elif before != now:
            yield f"{prefix}{key}: {_format_value(before)} → {_format_value(now)}"


def _is_list_of_blocks(value: Any) -> TypeGuard[list[dict[Any, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(block, dict) for block in value)


def _format_value(value: Any) -> str:
    if _is_list_of_blocks(value):
        return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
