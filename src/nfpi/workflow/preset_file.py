"""Detection of two presets of one name, whose results would be in one folder.

A folder results/{preset} notes which user's file it was made from. The path is relative to the folder, so that a
project may be moved or copied with its results.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nfpi.config import ConfigError
from nfpi.runtime.files import write_atomically
from nfpi.workflow.plan import Plan, shorten_path

_NOTE = ".preset_file"


def check_preset_file(plan: Plan) -> None:
    """Check that the results of a preset are not those of another file of this name.

    A file that is gone was moved or renamed, and one with equal text is taken for a copy, although relative paths in it
    may then name other files; both are accepted. A file that this user may not read counts as gone.

    Raises:
        ConfigError: the results are those of another file.
    """
    file, noted = plan.resolved.file, _read_note(plan)
    if file is None or noted is None or noted.content == file.read_bytes():
        return
    raise ConfigError(
        f"{plan.layout.root}: expected preset {shorten_path(noted.file)}, whose results these are, received "
        f"{shorten_path(file)}: rename one of them, or set another folder by --config results=FOLDER"
    )


def note_preset_file(plan: Plan) -> None:
    """Record the file that the results of a preset are made from, unless another one is recorded that still exists."""
    file, root = plan.resolved.file, plan.layout.root
    if file is not None and _read_note(plan) is None:
        write_atomically(root / _NOTE, Path(os.path.relpath(file, root.resolve())).as_posix())


@dataclass(frozen=True)
class _Noted:
    """The recorded file and its contents."""

    file: Path
    content: bytes


def _read_note(plan: Plan) -> _Noted | None:
    """Return the recorded file; None if none is recorded, it has another name, or it can no longer be read."""
    root = plan.layout.root.resolve()
    try:
        file = (root / (root / _NOTE).read_text(encoding="utf-8")).resolve()
        return _Noted(file, file.read_bytes()) if file.stem == plan.preset else None
    except (OSError, ValueError):
        return None
