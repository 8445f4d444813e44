"""How a stage is carried out: nothing is begun where nothing can be written, and a fit that diverged is a result."""

from __future__ import annotations

import logging

from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.runtime.files import require_writable
from nfpi.stages.options.base import Command, Stage

logger = logging.getLogger(__name__)


def execute(command: Command) -> None:
    """Do the work of a command."""
    if isinstance(command, Stage):
        _carry_out(command)
    else:
        command.load()(command)


def _carry_out(stage: Stage) -> None:
    """Do the work of a stage; where the fit that it depends on diverged, its outputs say so.

    Raises:
        Diverged: that fit diverged, and the stage declares no outputs that could say so.
        OSError: the outputs cannot be written.
    """
    require_writable(stage.output)
    try:
        stage.load()(stage)
    except Diverged as fault:
        if not stage.outputs:
            raise
        mark_diverged(stage.output_paths(), fault)
        logger.warning("%s", fault)
