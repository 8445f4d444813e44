"""Record of the runs requested by the last call of the workflow, which include those not started yet."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from nfpi.runs import Run, parse_run_folder
from nfpi.runtime.files import write_atomically

FILE = "planned.json"


def write_planned(root: Path, runs: Iterable[Run]) -> None:
    """Write the folders of the requested runs to results/{preset}/planned.json."""
    folders = list(dict.fromkeys(run.folder for run in runs))
    write_atomically(root / FILE, json.dumps({"runs": folders}, indent=2) + "\n")


def read_planned(root: Path) -> list[Run]:
    """Read the requested runs; empty if the file is missing or damaged."""
    try:
        folders = json.loads((root / FILE).read_text(encoding="utf-8"))["runs"]
        runs = [parse_run_folder(folder) for folder in folders]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [run for run in runs if run is not None]
