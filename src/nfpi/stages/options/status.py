"""Commands that show the progress and the logs of runs."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.config import NonNegativeInt
from nfpi.stages.options.base import Command


class ShowStatus(Command):
    """Print the progress of the runs in a folder of results.

    Also print the hours of each run. A run is waiting, running (with epoch and time left), stopped, failed (with the
    last line of its log), diverged, damaged, outdated (made from other images than the present data set), or done (with
    its main metric). Jobs on a cluster are shown too, because the command only reads their files.
    """

    command = "status"
    work = "nfpi.stages.status:show_status"

    results: CliPositionalArg[Path] = Path("results")
    """results/{preset}, or the folder that contains the results of several presets"""


class ShowLog(Command):
    """Print and follow the last log of a run.

    Follows the log while the run is active. The log of its SLURM job, if any, is printed first.
    """

    command = "log"
    work = "nfpi.stages.log:show_log"

    run: CliPositionalArg[Path]
    """folder of the run as printed by `nfpi status`, or with results/{preset} prepended"""
    results: Path = Path("results")
    """folder in which the run is searched for, unless its path begins with results/{preset}"""
    lines: NonNegativeInt = 20
    """number of lines to begin with"""
    follow: bool = True
    """follow the log while the run is active"""
