"""The command that follows the log of a run."""

from __future__ import annotations

import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from string import Formatter

from pydantic_settings import CliPositionalArg

from nfpi.config import NonNegativeInt
from nfpi.results.recorded.progress import find_roots, is_running, list_logs, read_modification_time
from nfpi.runs import LOGS_FOLDER, WEIGHT_PATTERN, Run, parse_run_folder
from nfpi.runtime.job_log import read_last_lines
from nfpi.stages.base import Command

_SLURM_LOGS = Path("results/slurm")
"""folder of SLURM's logs (`slurm-logdir` of the profiles), relative to the clone even if `results:` is elsewhere. As
this path is found in the clone only, a folder `slurm` beside results/{preset} is searched first."""
_POLL_SECONDS = 0.5
"""seconds between two reads of the logs"""


class ShowLog(Command):
    """Print and follow the last log of a run.

    Follows the log while the run is active. The log of its SLURM job, if any, is printed first.
    """

    command = "log"

    folder: CliPositionalArg[Path]
    """folder of the run as printed by `nfpi status`, or with results/{preset} prepended"""
    results: Path = Path("results")
    """folder in which the run is searched for, unless its path begins with results/{preset}"""
    lines: NonNegativeInt = 20
    """number of lines to begin with"""
    follow: bool = True
    """follow the log while the run is active"""

    def run(self) -> None:
        """Print the end of the latest log, then follow it while the run is active; Ctrl-C stops.

        Raises:
            FileNotFoundError: the run does not exist or has no log yet.
        """
        root, run = _find_run(self)
        shown: dict[Path, int] = {}
        with suppress(KeyboardInterrupt):
            while True:
                active = self.follow and is_running(root, run)  # checked first, so that the last lines are read too
                for path in _find_last_logs(root, run):
                    if path not in shown:
                        print(f"==> {path} <==")
                        shown[path] = path.stat().st_size if path.exists() else 0
                        for line in read_last_lines(path, self.lines):
                            print(line)
                    shown[path] = _print_from_offset(path, shown[path])
                sys.stdout.flush()
                if not active:
                    return
                time.sleep(_POLL_SECONDS)


def _find_run(command: ShowLog) -> tuple[Path, Run]:
    name = command.folder
    candidates = [(parent, name.relative_to(parent)) for parent in name.parents if (parent / LOGS_FOLDER).is_dir()]
    with suppress(FileNotFoundError):
        candidates += [(root, name) for root in find_roots(command.results)]
    found = [
        (read_modification_time(logs[-1]), root, run)
        for root, folder in candidates
        if (run := parse_run_folder(folder.as_posix())) is not None and (logs := list_logs(root, run))
    ]
    if not found:
        raise FileNotFoundError(f"{name}: expected a run with a log, received none (nfpi status lists runs)")
    _, root, run = max(found, key=lambda item: item[0])  # several presets may have the run
    return root, run


def _find_last_logs(root: Path, run: Run) -> list[Path]:
    """Return the log of the last job, preceded by SLURM's, which exists until the job succeeds."""
    logs = list_logs(root, run)
    if not logs:  # Snakemake removes the log before the job is tried again
        return []
    log = logs[-1]
    values = [run.wildcards[name] for _, name, _, _ in Formatter().parse(run.template) if name]
    # The SLURM executor names its folders of logs by all wildcards of a rule: those of the run, followed in some rules
    # by a temperature, or by the variants of an augmentation.
    other = {"train_classifier": f"_{WEIGHT_PATTERN}", "test_classifier": ""}.get(log.stem, "_.*")
    folder = re.compile(f"{re.escape('_'.join(values).replace('/', '_'))}({other})?")
    slurm: list[Path] = []
    for logs_of_jobs in (root.absolute().parent / _SLURM_LOGS.name, _SLURM_LOGS):
        slurm = slurm or [
            path
            for path in logs_of_jobs.glob(f"rule_{log.stem}*/*/*.log")
            if folder.fullmatch(path.parent.name) is not None
        ]
    return [*sorted(slurm, key=read_modification_time)[-1:], log]


def _print_from_offset(path: Path, offset: int) -> int:
    """Print a file from an offset on, or all of it if it is shorter (a new log), and return the offset of its end."""
    try:
        with path.open("rb") as file:
            offset = offset if file.seek(0, 2) >= offset else 0
            file.seek(offset)
            added = file.read()
    except OSError:
        return offset
    sys.stdout.write(added.decode("utf-8", errors="replace"))
    return offset + len(added)
