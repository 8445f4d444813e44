"""Extensions of the preset that a page needs and that are not loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nfpi.config.extensions import get_loaded_names
from nfpi.config.metrics import METRICS, find_registered_name
from nfpi.page.tables import ShownTable
from nfpi.results.recorded.runs import RecordedRun
from nfpi.results.recorded.settings import read_extension_names
from nfpi.results.tables.building import list_metrics


def describe_missing_extensions(root: Path, recorded: Sequence[RecordedRun], tables: Sequence[ShownTable]) -> str:
    """Return one line on metrics that are shown without label and unit; empty if there are none.

    Args:
        root: folder of results; its settings name the extensions of the preset.
        recorded: the runs.
        tables: the tables.
    """
    loaded = {path.name for path in get_loaded_names()}
    missing = [name for name in read_extension_names(root) if name not in loaded]
    names = [name for item in recorded for name in item.metrics]
    names += [name for table in tables if table.frame is not None for name in list_metrics(table.frame.columns)]
    unknown = sorted({name for name in names if find_registered_name(name) not in METRICS})
    if not (missing and unknown):
        return ""
    options = " ".join(f"--extensions {name}" for name in missing)
    return (
        f"{', '.join(unknown)}: shown without label and unit, which extensions of the preset may define: expected "
        f"`nfpi {options} page {root}`, received no {' or '.join(missing)}"
    )
