"""How a stage is carried out: alone, on complete inputs that belong together, with one commit at its end."""

from __future__ import annotations

import logging
import os
from typing import Any

from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.runtime.files import note_written, remove_remains, require_writable, written_together
from nfpi.runtime.job_log import PLACE
from nfpi.runtime.locks import locked
from nfpi.runtime.manifests import ManifestError, trace, write_manifest
from nfpi.stages.options.base import MANIFEST, Command, Stage

logger = logging.getLogger(__name__)


def execute(command: Command) -> None:
    """Do the work of a command."""
    if isinstance(command, Stage) and PLACE not in os.environ:
        _carry_out(command)
    else:  # the further processes of a training leave all files to the first one
        command.load()(command)


def _carry_out(stage: Stage) -> None:
    """Do the work of a stage; where the fit that it depends on diverged, its outputs say so.

    Its files appear together, and its manifest after them: until then, no other stage reads them.

    Raises:
        ManifestError: an input is damaged, or two do not belong together.
        LockedError: another process does the same.
        Diverged: the fit diverged, and the stage declares no outputs that could say so.
        OSError: the outputs cannot be written.
    """
    require_writable(stage.output)
    with locked(stage.lock, stage.command), note_written() as written:
        for path in stage.output_paths():
            remove_remains(path)
        made_from, facts = trace(stage.input_files(), common=stage.common)
        facts |= stage.facts()
        _check_identity(stage, facts)
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
            )


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
