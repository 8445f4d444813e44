"""What a call checks and writes in the folder results/{preset}: its lock, origin, planned runs, settings and page.

**Lock.** Snakemake's own lock is not enough: it is in the working directory, so a second clone can write to the same
results, and it remains if Snakemake is killed.

**Preset file.** Two presets of one name would have the same folder of results. Therefore, the folder records which
user's file it was made from. The path is relative to the folder, so that a project may be moved or copied with its
results.

**Identifier.** Snakemake remembers in `.snakemake`, by path, with which settings a file was made. It treats a file in
another place as up to date, whatever the settings are. Therefore, the folder has an identifier, which is noted in
`.snakemake` for the path of the folder. `snakemake all --touch --forceall` runs nothing, and makes Snakemake remember
the files with the settings of that call.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import uuid
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nfpi.config.base import ConfigError, list_execution_settings
from nfpi.config.classifiers import ClassifierConfig
from nfpi.config.training import TrainingConfig
from nfpi.results.recorded.settings import FILE, StoredSettings, read_settings, write_planned, write_settings
from nfpi.results.tables.rows import list_table_rows
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError
from nfpi.runtime.locks import acquire
from nfpi.stages.claims import list_claimed_runs
from nfpi.workflow.declarations import list_differences
from nfpi.workflow.plan import Plan, shorten_path
from nfpi.workflow.targets import CLAIMS
from nfpi.workflow.terminal import OURS

_LOCK = ".snakemake.lock"
_PRESET_FILE = ".preset_file"
_IDENTIFIER = ".snakemake_id"
_NOTES = Path(".snakemake/nfpi")
_NAMED_BLOCKS = ("datasets", "flows", "priors", "classifiers")
_BLOCKS = (*_NAMED_BLOCKS, "training", "evaluation", "generation", "nfa")
"""blocks of config.yaml that runs are made with; the `_NAMED_BLOCKS` have an entry for each name"""


def lock_results(root: Path) -> None:
    """Lock results/{preset} until this process ends, even if it is killed.

    Raises:
        LockedError: another Snakemake holds the lock.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = acquire(root.absolute() / _LOCK, "make these results")  # the working directory may change before the release
    atexit.register(lock.release)


def check_preset_file(plan: Plan) -> None:
    """Check that the results of a preset are not those of another file of this name.

    A file that is gone was moved or renamed, and one with equal text is taken for a copy, although relative paths in it
    may then name other files; both are accepted. A file that this user may not read counts as gone.

    Raises:
        ConfigError: the results are those of another file.
    """
    file, recorded = plan.resolved.file, _read_preset_file(plan)
    if file is not None and recorded is not None and recorded[1] != file.read_bytes():
        raise ConfigError(
            f"{plan.layout.root}: expected preset {shorten_path(recorded[0])}, whose results these are, received "
            f"{shorten_path(file)}: rename one of them, or set another folder by --config results=FOLDER"
        )


def check_origin(plan: Plan) -> str | None:
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
    raise ConfigError(
        f"{fault}, so that Snakemake cannot tell which files depend on the changed settings ({changes}): set them "
        f"back, run `{touch}` once, and change them again"
    )


def record_origin(plan: Plan, remembered: bool) -> None:
    """Record the file of the preset, and that Snakemake knows the settings of results if they are new.

    A preset file that is recorded and still exists is kept.

    Args:
        plan: settings and paths of the call.
        remembered: whether the call is `snakemake all --touch --forceall`, which makes Snakemake remember the settings
            of existing results. With other targets, it remembers the settings of a part of the files only.
    """
    root, file = plan.layout.root, plan.resolved.file
    if file is not None and _read_preset_file(plan) is None:
        write_atomically(root / _PRESET_FILE, Path(os.path.relpath(file, root.resolve())).as_posix())
    identifier = root / _IDENTIFIER
    if remembered or not identifier.is_file():
        if not identifier.is_file():
            write_atomically(identifier, uuid.uuid4().hex)
        _NOTES.mkdir(parents=True, exist_ok=True)
        write_atomically(_locate_note(root), identifier.read_bytes())


def record_call(plan: Plan, requested: Collection[str]) -> None:
    """Write the settings of the call, and for `nfpi status` the runs behind the requested tables, figures and claims.

    Args:
        plan: settings and paths of the call.
        requested: targets of the call; empty: all. If none of them is a table, the figure of a table or the claims, the
            list of an earlier call is kept.
    """
    write_settings(plan.layout.root, StoredSettings.of(plan.preset, plan.config))
    names = [
        name
        for name in plan.config.tables
        if not requested or not {"all", name, *plan.config.list_table_figures(name)}.isdisjoint(requested)
    ]
    runs = [run for name in names for row in list_table_rows(plan.config, name) for run in row.runs]
    runs += list_claimed_runs(plan.config) if CLAIMS in requested else []
    if runs:
        write_planned(plan.layout.root, runs)


def write_page_at_end(logger: logging.Logger, plan: Plan) -> None:
    """Write the page of the preset from the present results and print its path.

    No job depends on the page: an error is one line, and does not change how the call ends.

    Args:
        logger: Snakemake's logger.
        plan: settings and paths of the call.
    """
    root = plan.layout.root
    if not root.is_dir():
        return
    try:
        from nfpi.page.products import describe_preset, write_descriptions  # slow: imports pandas and matplotlib
        from nfpi.page.write import write_page

        write_descriptions(root, describe_preset(plan.config))
        logger.info(f"page:   {write_page(root)}", extra=OURS)
    except Exception as error:
        logger.error(f"The page of results was not written: {format_error(error)}", extra=OURS)


def _read_preset_file(plan: Plan) -> tuple[Path, bytes] | None:
    """Return the recorded file and its contents; None if it is missing, unreadable or has another name."""
    root = plan.layout.root.resolve()
    try:
        file = (root / (root / _PRESET_FILE).read_text(encoding="utf-8")).resolve()
        return (file, file.read_bytes()) if file.stem == plan.preset else None
    except (OSError, ValueError):
        return None


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
    without_effect = list_execution_settings(TrainingConfig, ClassifierConfig)
    for block in _BLOCKS:
        old, new = before[block], now[block]
        if block in _NAMED_BLOCKS:
            old, new = ({name: one[name] for name in one if name in other} for one, other in ((old, new), (new, old)))
        for change in list_differences(old, new, f"{block}."):
            if change.partition(": ")[0].rpartition(".")[2] not in without_effect:
                yield change
