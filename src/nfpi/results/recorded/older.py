"""Detection of results written by older versions in another folder layout."""

from __future__ import annotations

import itertools
from pathlib import Path

from nfpi.runs import BENCHMARKS_FOLDER, FLOW_RUN, LOGS_FOLDER

_FOLDERS = ("*/*/lambda=*", "*/real/seed=*", "*/start/*/seed=*")
"""Folders in results/{preset} that exist only in the first layout, except among logs and benchmarks."""


def find_older_results(root: Path) -> Path | None:
    """Return a folder in results/{preset} made by an older version, if there is one."""
    found = itertools.chain.from_iterable(map(root.glob, _FOLDERS))
    return next(
        (path for path in found if path.relative_to(root).parts[0] not in (LOGS_FOLDER, BENCHMARKS_FOLDER)), None
    )


def describe_older_results(path: Path) -> str:
    """Describe in one line what was found, and what to do."""
    return (
        f"made by an older version: {path}: expected results in {FLOW_RUN.replace('weight', 'λ')}; move them away, or "
        "choose another folder by `results:`"
    )
