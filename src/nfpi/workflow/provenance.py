"""Detection of results whose settings Snakemake does not know, because the results were moved or copied.

Snakemake remembers in `.snakemake`, by path, with which settings a file was made. It treats a file in another place as
up to date, whatever the settings are. Therefore, a folder results/{preset} has an identifier, which is noted in
`.snakemake` for the path of the folder.

`snakemake all --touch --forceall` runs nothing, and makes Snakemake remember the files with the settings of that call.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nfpi.config import ClassifierConfig, ConfigError, TrainingConfig, list_execution_settings
from nfpi.results.recorded.settings import FILE, StoredSettings, read_settings
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError
from nfpi.workflow.changes import list_differences
from nfpi.workflow.plan import Plan

_IDENTIFIER = ".snakemake_id"
_NOTES = Path(".snakemake/nfpi")
_NAMED_BLOCKS = ("datasets", "flows", "priors", "classifiers")
_BLOCKS = (*_NAMED_BLOCKS, "training", "evaluation", "generation", "nfa")
"""blocks of config.yaml that runs are made with; the `_NAMED_BLOCKS` have an entry for each name"""
_LONGEST_LIST = 200
"""characters of a list of changes"""


def check_provenance(plan: Plan) -> str | None:
    """Check that Snakemake knows the settings that the results of a preset were made with.

    Returns:
        None if Snakemake knows these settings, or if the results have no identifier; else a warning.

    Raises:
        ConfigError: Snakemake does not know these settings, and settings of runs were changed since the last call.
    """
    root = plan.layout.root
    if not (root / _IDENTIFIER).is_file() or not (root / FILE).is_file() or _is_noted(root):
        return None
    fault = f"{root}: moved or copied here, or made with another .snakemake folder"
    touch = "snakemake all --touch --forceall"
    try:
        before, now = read_settings(root), StoredSettings.of(plan.preset, plan.config)
    except FormatError as error:
        return f"{fault}: changed settings are not noticed; {error}"
    changes = ", ".join(_list_changes(before.to_json()["settings"], now.to_json()["settings"]))
    if not changes:
        return (
            f"{fault}: changed settings are not noticed until `{touch}` has been run once with unchanged settings; "
            "until then, results may also be made again if the copy did not keep the times of files"
        )
    listed = changes if len(changes) <= _LONGEST_LIST else f"{changes[:_LONGEST_LIST]}…"
    raise ConfigError(
        f"{fault}, so that Snakemake cannot tell which files depend on the changed settings ({listed}): set them back, "
        f"run `{touch}` once, and change them again"
    )


def note_provenance(plan: Plan, remembered: bool) -> None:
    """Record that Snakemake knows the settings of results if they are new, or if this call makes it remember them.

    Args:
        plan: settings and paths of the call.
        remembered: whether the call is `snakemake all --touch --forceall`. With other targets, Snakemake remembers the
            settings of a part of the files only.
    """
    root = plan.layout.root
    path = root / _IDENTIFIER
    if remembered or not path.is_file():
        if not path.is_file():
            write_atomically(path, uuid.uuid4().hex)
        _NOTES.mkdir(parents=True, exist_ok=True)
        write_atomically(_locate_note(root), path.read_bytes())


def _is_noted(root: Path) -> bool:
    try:
        return _locate_note(root).read_bytes() == (root / _IDENTIFIER).read_bytes()
    except OSError:
        return False


def _locate_note(root: Path) -> Path:
    return _NOTES / hashlib.sha256(root.as_posix().encode()).hexdigest()[:16]


def _list_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the changed settings that files may depend on, except entries on one side only, such as a new prior.

    Of an absolute path of a folder, the last name is compared: Snakemake would not notice other images in it either.
    """
    for block in _BLOCKS:
        old, new = (_drop_without_effect(settings[block], block) for settings in (before, now))
        if block in _NAMED_BLOCKS:
            old, new = ({name: one[name] for name in one if name in other} for one, other in ((old, new), (new, old)))
        yield from list_differences(old, new, f"{block}.")


def _drop_without_effect(value: Any, key: str) -> Any:
    """Remove the settings that no result depends on from the value of a key.

    An entry of a named block is kept, even if it has the name of such a setting, as a prior named `keep`.
    """
    if not isinstance(value, Mapping):
        return value
    dropped = () if key in _NAMED_BLOCKS else list_execution_settings(TrainingConfig, ClassifierConfig)
    return {inner: _drop_without_effect(of_inner, inner) for inner, of_inner in value.items() if inner not in dropped}
