"""What a call checks and writes in the folder results/{preset}: its lock, preset file, planned runs, settings and page.

**Lock.** Snakemake's own lock is not enough: it is in the working directory, so a second clone can write to the same
results, and it remains if Snakemake is killed.

**Preset file.** Two presets of one name would have the same folder of results. Therefore, the folder records which
user's file it was made from. The path is relative to the folder, so that a project may be moved or copied with its
results.
"""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from nfpi.config.base import ConfigError
from nfpi.config.resolution import Resolved
from nfpi.config.settings import Config
from nfpi.results.recorded.calls import StoredSettings, write_keys, write_planned, write_settings
from nfpi.results.tables.rows import list_claimed_runs, list_table_rows
from nfpi.runs import PRESET_FILE
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import require_writable, write_atomically
from nfpi.runtime.locks import acquire
from nfpi.stages.keys import SettingsKeys
from nfpi.workflow.planning import Planning
from nfpi.workflow.targets import CLAIMS, Targets, shorten_path
from nfpi.workflow.terminal import OURS

_LOCK = ".snakemake.lock"


def lock_results(root: Path) -> None:
    """Lock results/{preset} until this process ends, even if it is killed.

    Raises:
        LockedError: another Snakemake holds the lock.
        OSError: the folder cannot be written.
    """
    require_writable(root)
    root.mkdir(parents=True, exist_ok=True)
    lock = acquire(root.absolute() / _LOCK, "make these results")  # the working directory may change before the release
    atexit.register(lock.release)


def check_preset_file(resolved: Resolved) -> None:
    """Check that the results of a preset are not those of another file of this name.

    A file that is gone was moved or renamed, and one with equal text is taken for a copy, although relative paths in it
    may then name other files; both are accepted. A file that this user may not read counts as gone.

    Raises:
        ConfigError: the results are those of another file.
    """
    file, recorded = resolved.file, _read_preset_file(resolved)
    if file is not None and recorded is not None and recorded[1] != file.read_bytes():
        raise ConfigError(
            f"{resolved.layout.root}: expected preset {shorten_path(recorded[0])}, whose results these are, received "
            f"{shorten_path(file)}: rename one of them, or set another folder by --config results=FOLDER"
        )


def record_preset_file(resolved: Resolved) -> None:
    """Record the file of the preset; one that is recorded and still exists is kept."""
    root, file = resolved.layout.root, resolved.file
    if file is not None and _read_preset_file(resolved) is None:
        write_atomically(root / PRESET_FILE, Path(os.path.relpath(file, root.resolve())).as_posix())


def record_call(resolved: Resolved, requested: Collection[str], keys: Mapping[str, str]) -> None:
    """Write settings and keys of the call, and for `nfpi status` the runs behind requested tables, figures and claims.

    Args:
        resolved: settings and paths of the call.
        requested: targets of the call; empty: all. If none of them is a table, the figure of a table or the claims, the
            list of an earlier call is kept.
        keys: keys of the products, by the paths of their manifests below results/{preset}.
    """
    write_keys(resolved.layout.root, keys)
    write_settings(resolved.layout.root, StoredSettings.of(resolved.preset, resolved.config))
    names = list_requested_tables(resolved.config, requested)
    runs = [run for name in names for row in list_table_rows(resolved.config, name) for run in row.runs]
    runs += list_claimed_runs(resolved.config) if CLAIMS in requested else []
    if runs:
        write_planned(resolved.layout.root, runs)


def describe_present_results(planning: Planning, targets: Targets, requested: Collection[str], is_dry_run: bool) -> str:
    """Return the requested results of a call without jobs; unless it is a dry run, its settings count from now on.

    Raises:
        ConfigError: see :meth:`nfpi.workflow.planning.Planning.check`.
    """
    planning.check()
    if planning.resolved.layout.root.is_dir() and not is_dry_run:
        record_call(planning.resolved, requested, planning.keys.known)
    return targets.describe(requested)


def list_requested_tables(config: Config, requested: Collection[str]) -> list[str]:
    """Return the tables among the targets of a call, and those whose figures are; all if there are no targets."""
    return [
        name
        for name in config.tables
        if not requested or not {"all", name, *config.list_table_figures(name)}.isdisjoint(requested)
    ]


def write_page_at_end(logger: logging.Logger, resolved: Resolved) -> None:
    """Write the page of the preset from the present results and print its path.

    No job depends on the page: an error is one line, and does not change how the call ends.

    Args:
        logger: Snakemake's logger.
        resolved: settings and paths of the call.
    """
    root = resolved.layout.root
    if not root.is_dir():
        return
    try:
        from nfpi.page.write import write_page  # slow: imports pandas and matplotlib

        logger.info(f"page:   {write_page(root, SettingsKeys())}", extra=OURS)
    except Exception as error:
        logger.error(f"The page of results was not written: {format_error(error)}", extra=OURS)


def _read_preset_file(resolved: Resolved) -> tuple[Path, bytes] | None:
    """Return the recorded file and its contents; None if it is missing, unreadable or has another name."""
    root = resolved.layout.root.resolve()
    try:
        file = (root / (root / PRESET_FILE).read_text(encoding="utf-8")).resolve()
        return (file, file.read_bytes()) if file.stem == resolved.preset and file.is_file() else None
    except (OSError, ValueError):
        return None
