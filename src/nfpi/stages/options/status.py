"""The commands that tell how far runs are, and what they print."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.config import NonNegativeInt
from nfpi.stages.options.base import Command


class ShowStatus(Command):
    """Print how far the runs of a folder of results are.

    Waiting, running with epoch and time left, stopped, failed with its last line, diverged, or done with its main
    number; and the hours that each took. Only files are read: it works for jobs of a cluster, and while they run.
    """

    command = "status"
    work = "nfpi.stages.status:show_status"

    results: CliPositionalArg[Path] = Path("results")
    """results/{preset}, or a folder of several"""


class ShowLog(Command):
    """Print and follow the last log of a run.

    What is added to it is printed while the run is at work. SLURM's log stands before it, where the run is a job of it.
    """

    command = "log"
    work = "nfpi.stages.log:show_log"

    run: CliPositionalArg[Path]
    """folder of the run, as `nfpi status` names it or with results/{preset} before it"""
    results: Path = Path("results")
    """where a run without its folder of results is looked for"""
    lines: NonNegativeInt = 20
    """how many there are to begin with"""
    follow: bool = True
    """continue while the run is at work"""
