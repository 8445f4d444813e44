"""How a stage is carried out: alone, on complete inputs that belong together, with one commit at its end."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from nfpi import __version__
from nfpi.config.extensions import loaded_digests
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.runtime.files import note_written, remove_remains, require_writable, written_together
from nfpi.runtime.job_log import PLACE, in_use, print_line
from nfpi.runtime.locks import LockedError, locked
from nfpi.runtime.manifests import ManifestError, digest_of, find_faults, read_manifest, trace, write_manifest
from nfpi.stages.options.base import MANIFEST, Command, Stage

logger = logging.getLogger(__name__)

_SECONDS = 2.0
"""Time between two tries to get a lock."""


def execute(command: Command) -> None:
    """Do the work of a command."""
    if isinstance(command, Stage) and PLACE not in os.environ:
        _carry_out(command)
    else:  # the further processes of a training leave all files to the first one
        command.load()(command)


def _carry_out(stage: Stage) -> None:
    """Do the work of a stage; where the fit that it depends on diverged, its outputs say so.

    Its files appear together, and its manifest after them: until then, no other stage reads them.

    Where another process does the same, a command given by hand is refused. A job of the workflow waits: it was
    submitted again after a Snakemake that was killed, whose jobs still run. What the other one has made then is taken
    if it was told the same; if not, or if it did not end well, the work is done, from its last checkpoint.

    Raises:
        ManifestError: an input is damaged, or two do not belong together.
        LockedError: another process does the same, and this is no job of the workflow.
        Diverged: the fit diverged, and the stage declares no outputs that could say so.
        OSError: the outputs cannot be written.
    """
    require_writable(stage.output)
    task = digest_of([stage.command, stage.model_dump_json(), __version__, loaded_digests()])
    manifest_before, other_task = _written_at(stage), ""

    def wait(fault: LockedError) -> None:
        nonlocal other_task
        if not other_task:
            print_line(f"nfpi: {fault}: waiting until it ends")
        other_task = fault.note or "unknown"
        time.sleep(_SECONDS)

    with locked(stage.lock, stage.command, task, wait if in_use() else None), note_written() as written:
        for path in stage.output_paths():
            remove_remains(path)
        made_from, facts = trace(stage.input_files(), common=stage.common)
        facts |= stage.facts()
        _check_identity(stage, facts)
        if other_task == task and _written_at(stage) != manifest_before and _is_made(stage, made_from, facts):
            logger.info("%s: the other process has made it", stage.output)
            return
        try:
            with written_together():
                stage.load()(stage)
        except Diverged as fault:
            if not stage.outputs:
                raise
            mark_diverged(stage.output_paths(), fault)
            logger.warning("%s", fault)
        if stage.product:
            write_manifest(
                stage.path(MANIFEST),
                stage.command,
                stage.product,
                stage.output_paths(),
                timed=[stage.path(name) for name in stage.timed],
                made_from=made_from,
                facts=facts,
                digests=written.digests,
                temporary=stage.temporary,
            )
        stage.end()


def _written_at(stage: Stage) -> tuple[int, int] | None:
    """Inode and time of the manifest, which is a new file whenever it is written; None: there is none."""
    path = stage.path(MANIFEST) if stage.product else Path()
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def _is_made(stage: Stage, made_from: dict[str, str], facts: dict[str, Any]) -> bool:
    """Whether the outputs are there, undamaged, and made from the present inputs."""
    path = stage.path(MANIFEST)
    if not path.is_file() or find_faults(path)[1]:
        return False
    manifest = read_manifest(path)
    return manifest.made_from == made_from and manifest.facts == facts


def _check_identity(stage: Stage, facts: dict[str, Any]) -> None:
    """Make sure that the inputs are those of the run that the stage is told to work for.

    Raises:
        ManifestError: they have another seed, or another λ.
    """
    identity = getattr(stage, "run", None)
    if identity is None:
        return
    expected = Run.from_json(identity).to_json()
    for name, received in facts.items():
        if name in expected and expected[name] != received:
            raise ManifestError(
                f"{stage.output}: expected inputs with {name} = {expected[name]}, as the run has, received {received}"
            )
