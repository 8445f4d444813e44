"""Changed settings, in one line each."""

from __future__ import annotations

from typing import Any

import pytest

from nfpi.workflow.planning import list_differences


@pytest.mark.parametrize(
    ("before", "now", "changes"),
    [
        ({"epochs": 40, "batch_size": 128}, {"epochs": 12, "batch_size": 128}, ["epochs: 40 → 12"]),
        ({"damping": {"first": 1}}, {"damping": {"first": 2}}, ["damping.first: 1 → 2"]),
        ({"points": 3, "axes": 1}, {"axes": 2}, ["points: 3 → null", "axes: 1 → 2"]),
        ({"rows": [{"a": 1}, {"a": 2}]}, {"rows": [{"a": 1}, {"a": 3}]}, ["rows.1.a: 2 → 3"]),
        ({"rows": [{"a": 1}]}, {"rows": [{"a": 1}, {"a": 3}]}, ['rows: [{"a": 1}] → [{"a": 1}, {"a": 3}]']),
        ({"epochs": 1}, {"epochs": 1}, []),
    ],
)
def test_each_difference_is_named(before: dict[str, Any], now: dict[str, Any], changes: list[str]) -> None:
    assert list(list_differences(before, now)) == changes
    assert list(list_differences(before, now, "block.")) == [f"block.{change}" for change in changes]
