"""Detection of results whose settings Snakemake does not know, as they were moved or copied.

Snakemake remembers in `.snakemake`, by path, with which settings a file was made. Of files in another place it knows
nothing, and takes them as up to date whatever the settings are. So a folder results/{preset} has an identifier, which
is noted in `.snakemake` together with its path.
"""

from __future__ import annotations

import uuid
from itertools import islice
from pathlib import Path

from nfpi.config import ConfigError
from nfpi.results.settings import FILE, StoredSettings, read_settings
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError
from nfpi.workflow.changes import list_differences
from nfpi.workflow.plan import Plan

_IDENTIFIER = ".snakemake_id"
_NOTES = Path(".snakemake/nfpi")
_MOST_CHANGES = 5


def check_provenance(plan: Plan) -> str | None:
    """Check that Snakemake knows the settings that the results of a preset were made with.

    Args:
        plan: settings and paths of the call.

    Returns:
        A warning if it does not, but the settings are those of the last call; otherwise None.

    Raises:
        ConfigError: it does not, and settings differ from those of the last call.
    """
    root = plan.layout.root
    if not (root / _IDENTIFIER).is_file() or not (root / FILE).is_file() or _is_noted(root):
        return None
    fault = f"{root}: moved or copied here, or made with another .snakemake folder"
    try:
        before, now = read_settings(root), StoredSettings.of(plan.preset, plan.config)
    except FormatError as error:
        return f"{fault}; and {error}"
    changes = list(islice(list_differences(before.to_json()["settings"], now.to_json()["settings"]), _MOST_CHANGES + 1))
    if not changes:
        return f"{fault}: changes since its last call, of images or extensions, are not noticed"
    listed = ", ".join([*changes[:_MOST_CHANGES], *["…"] * (len(changes) > _MOST_CHANGES)])
    raise ConfigError(
        f"{fault}, so that Snakemake cannot tell which files depend on changed settings ({listed}): move it back, "
        f"delete it to make all again, or delete {root / FILE} to keep its files as they are"
    )


def note_provenance(plan: Plan) -> None:
    """Note that results of a preset are made from here, for the next call."""
    root = plan.layout.root
    if not _is_noted(root):
        identifier = uuid.uuid4().hex  # a new one, as the folder may be a copy
        write_atomically(root / _IDENTIFIER, identifier)
        _NOTES.mkdir(parents=True, exist_ok=True)
        write_atomically(_NOTES / identifier, root.as_posix())


def _is_noted(root: Path) -> bool:
    """Return whether `.snakemake` has the identifier and the path of a folder."""
    try:
        return (_NOTES / (root / _IDENTIFIER).read_text()).read_text() == root.as_posix()
    except OSError:
        return False
