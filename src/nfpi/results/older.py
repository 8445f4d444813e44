"""Results of versions that laid them out in another way."""

from __future__ import annotations

import itertools
from pathlib import Path

from nfpi.runs import FLOW_RUN

_FOLDERS = ("*/*/lambda=*", "*/real/seed=*", "*/start/*/seed=*")
"""Folders below results/{preset} that the first layout had and the present one has not."""


def find_older_results(root: Path) -> Path | None:
    """Return a folder below results/{preset} that an older version made, if there is one."""
    return next(itertools.chain.from_iterable(map(root.glob, _FOLDERS)), None)


def describe_older_results(path: Path) -> str:
    """One line that says what was met, and what to do."""
    return (
        f"made by an older version: {path}: expected results in {FLOW_RUN.replace('weight', 'λ')}; move them away, or "
        "choose another folder by `results:`"
    )
