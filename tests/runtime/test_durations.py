"""Durations for people."""

from __future__ import annotations

import pytest

from nfpi.runtime.durations import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "< 1 s"),
        (0.4, "< 1 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (60, "1 min"),
        (119.9, "2 min"),
        (125, "2 min 5 s"),
        (600, "10 min"),
        (629, "10 min"),
        (3599.9, "1 h"),
        (4800, "1 h 20 min"),
        (3600 * 20 + 1800, "20 h"),
        (86400 * 2 + 3600 * 5, "2 d 5 h"),
    ],
)
def test_a_duration_has_its_largest_units(seconds, text):
    assert format_duration(seconds) == text
