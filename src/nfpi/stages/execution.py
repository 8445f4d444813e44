"""Execute a stage: under a lock, on complete inputs of the same run, committing all outputs at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nfpi import __version__
from nfpi.config.base import ConfigError
from nfpi.config.extensions import list_loaded_digests
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged
from nfpi.runtime.files import note_written, remove_remains, require_writable, written_together
from nfpi.runtime.job_log import is_first_process, print_line, writes_log
from nfpi.runtime.locks import LockedError, locked
from nfpi.runtime.manifests import (
    ManifestError,
    Origin,
    compute_digest,
    find_faults,
    read_manifest,
    trace_inputs,
    write_manifest,
)
from nfpi.stages.base import MANIFEST, Command, Stage
from nfpi.stages.seals import SettingsSeals

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0
"""seconds between two attempts to acquire a lock"""


def execute(command: Command) -> None:
    """Run a command."""
    if isinstance(command, Stage) and is_first_process():
        _run_stage(command)
    else:  # not a stage, or a further process of a training, which writes no files
        command.run()


def _run_stage(stage: Stage) -> None:
    """Run a stage, and write its manifest; if a fit or training diverged, here or before, the outputs record it.

    The outputs appear together, followed by the manifest; no other stage reads them before that.

    If another process holds the lock, a command given by hand fails. A job of the workflow waits instead, since the
    other process may be the same job, submitted before Snakemake was killed. The outputs of that process are accepted
    if its inputs and options were the same; otherwise the stage runs, resuming from the last checkpoint.

    Raises:
        ConfigError: the settings, or the user's files, are not those of the command's seal.
        ManifestError: an input is damaged or outdated, or two inputs do not belong together.
        LockedError: another process runs this stage, and this is not a job of the workflow.
        Diverged: a fit or training diverged, and the stage declares no outputs that could record it.
        OSError: the outputs cannot be written.
    """
    _check_seal(stage)
    require_writable(stage.output)
    task = compute_digest([stage.command, stage.model_dump_json(), __version__, list_loaded_digests()])
    manifest_before, other_task = _identify_manifest(stage), ""

    def wait(fault: LockedError) -> None:
        nonlocal other_task
        if not other_task:
            print_line(f"nfpi: {fault}: waiting until it ends")
        other_task = fault.note or "unknown"
        time.sleep(_RETRY_SECONDS)

    with locked(stage.lock, stage.command, task, wait if writes_log() else None), note_written() as written:
        for path in stage.list_output_paths():
            remove_remains(path)
        if other_task == task and _identify_manifest(stage) != manifest_before and _is_complete(stage):
            logger.info("%s: the other process has made it", stage.output)
            stage.finish()  # in case it was killed before it did
            return
        origin = _trace_inputs(stage)
        if stage.common is None:  # the results of many runs
            _check_seals(origin.inputs)
        try:
            with written_together():
                stage.run()
        except Diverged as fault:
            if not stage.outputs:
                raise
            with written_together():
                stage.record_divergence(fault)
            logger.warning("%s", fault)
        if stage.product:
            write_manifest(
                stage.get_path(MANIFEST),
                stage.command,
                stage.product,
                stage.list_output_paths(),
                timed=[stage.get_path(name) for name in stage.timed],
                **vars(origin),
                digests=written.digests,
                temporary=stage.temporary,
                settings=stage.declaration,
                seal=stage.compute_seal(),
            )
        stage.finish()


def _check_seal(stage: Stage) -> None:
    """Check that the settings and the user's files are those that the command was written with.

    Raises:
        ConfigError: they are not.
    """
    if stage.seal and stage.seal != stage.compute_seal():
        raise ConfigError(
            f"--seal: expected the settings of the call that planned this job ({stage.seal}), received changed ones "
            f"({stage.compute_seal()}): set them back, or call snakemake again; by hand, leave out --seal"
        )
    if not set(stage.code or ()) <= set(list_loaded_digests()):
        raise ConfigError("--extensions: expected the files with the digests in `code`, received changed ones")


def _check_seals(inputs: Iterable[Path]) -> None:
    """Check that runs were made with the settings beside them, and from the inputs that are there.

    Raises:
        ManifestError: a run was not.
    """
    seals = SettingsSeals()
    for fault in filter(None, map(seals.find_first_fault, inputs)):
        raise ManifestError(f"{fault}: `snakemake` with its target makes it again")


def _identify_manifest(stage: Stage) -> tuple[int, int] | None:
    """Return inode and modification time of the manifest, which is a new file at every write; None: no manifest."""
    path = stage.get_path(MANIFEST) if stage.product else Path()
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def _trace_inputs(stage: Stage, *, accept_removed: bool = False) -> Origin:
    """Verify the inputs, and return what the outputs are made from.

    Raises:
        ManifestError: an input is damaged, or two inputs do not belong together or to the run given by the options.
        OSError: an input cannot be read.
    """
    origin = trace_inputs(stage.list_input_files(), common=stage.common, accept_removed=accept_removed)
    other = trace_inputs(stage.list_other_files(), common=None, accept_removed=accept_removed)
    made_from = origin.made_from | {f"other {name}": content for name, content in other.made_from.items()}
    facts = origin.facts | stage.get_facts()
    identity = getattr(stage, "identity", None)
    expected = facts if identity is None else facts | Run.from_json(identity).to_json()
    for name, received in facts.items():
        if expected[name] != received:
            raise ManifestError(
                f"{stage.output}: expected inputs with {name} = {expected[name]} like the run, received {received}"
            )
    return replace(origin, made_from=made_from, facts=facts, inputs=origin.inputs | other.inputs)


def _is_complete(stage: Stage) -> bool:
    """Return whether the outputs are complete, intact and made from the current inputs.

    Temporary inputs may be missing: the process that made the outputs has removed them (:meth:`Stage.finish`).
    """
    path = stage.get_path(MANIFEST)
    if not path.is_file() or find_faults(path)[1]:
        return False
    manifest, origin = read_manifest(path), _trace_inputs(stage, accept_removed=True)
    return (manifest.made_from, manifest.facts) == (origin.made_from, origin.facts)
