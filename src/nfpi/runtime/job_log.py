"""The log of a job (`nfpi --log FILE`), to which all output of the process is appended, and the state of the job.

The error message of a stage is also printed on the original stderr of the process, so that it is seen even if the log
cannot be written. The state is written as JSON beside the log, for `nfpi status`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from nfpi.runtime.faults import escape_controls
from nfpi.runtime.signals import EXIT_STATUS

RANK_AND_PORT = "NFPI_PROCESS"
"""Environment variable that is set in all but the first process of a training on several devices
(:mod:`nfpi.runtime.processes`): rank of the process, and port of the first one. Only the first one writes the log."""

_STOPPED = (EXIT_STATUS, 130)
"""Exit statuses of a job that was stopped: by a signal, or by Ctrl-C."""
_LAST_EPOCHS = 5
"""Number of epochs whose mean duration is recorded."""
LOG_SUFFIX = ".log"
"""Appended to the name of a job of the workflow, gives its log."""
STATE_SUFFIX = ".json"
"""Appended to the name of a log, gives the file of the job's state, such as `train_flow.log.json`."""


def is_first_process() -> bool:
    """Return whether this is the only process of a training, or the one with rank 0, which writes log and outputs."""
    return os.environ.get(RANK_AND_PORT, "0").split()[0] == "0"


@dataclass
class JobState:
    """The state of a job, as its process recorded it last.

    Attributes:
        state: `running`, `done`, `stopped` (to be resumed) or `failed`; that of a killed job stays `running`.
        error: why the job failed, in one line.
        attempt: number of the attempt, from 1.
        epoch, epochs: number of epochs that have ended, and of all; 0: the job trains nothing.
        epoch_seconds: mean duration of the last epochs; None: not known yet.
    """

    state: str = "running"
    error: str = ""
    attempt: int = 1
    epoch: int = 0
    epochs: int = 0
    epoch_seconds: float | None = None


def read_state(path: Path) -> JobState | None:
    """Read the state of a job; None if the file is missing or has another form."""
    try:
        return JobState(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


class JobLog:
    """The log of this process and the state of its job.

    Args:
        path: path of the log.
        stderr: file descriptor of the stderr that the process was started with.

    Attributes:
        path, stderr: as given.
        state: the state.
        epoch_ends: times of the ends of the last epochs.
        before: the last state of the previous attempt; None: there was none, or it ended well.
    """

    def __init__(self, path: Path, stderr: int) -> None:
        self.path, self.stderr = path, stderr
        self.epoch_ends: deque[float] = deque(maxlen=_LAST_EPOCHS + 1)
        self._state_file = path.with_name(path.name + STATE_SUFFIX)
        self.before = read_state(self._state_file)
        if self.before is not None and self.before.state == "done":
            self.before = None
        self.state = JobState(attempt=1 if self.before is None else self.before.attempt + 1)
        self.write_state()

    def write_state(self) -> None:
        """Write the state, if the file can be written."""
        beside = self._state_file.with_name(f".{self._state_file.name}.tmp")
        with contextlib.suppress(OSError):
            beside.write_text(json.dumps(asdict(self.state)) + "\n", encoding="utf-8")
            beside.replace(self._state_file)

    def end_job(self, status: int) -> None:
        """Record the end of the job.

        Args:
            status: its exit status.
        """
        self.state.state = "stopped" if status in _STOPPED else "failed" if status else "done"
        self.write_state()

    def write_to_stderr(self, line: str) -> None:
        """Print a line on the original stderr, if it is still open."""
        with contextlib.suppress(OSError):
            os.write(self.stderr, line.encode(errors="backslashreplace"))

    def record_failure(self, error: str) -> None:
        """Record why the job fails, at once: the process may end without :meth:`end_job`."""
        self.state.state, self.state.error = "failed", error
        self.write_state()


class _LogStream(io.FileIO):
    """Stream without a buffer, whose output is lost if it cannot be written: no job fails because of its log."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


_log: JobLog | None = None


def writes_log() -> bool:
    """Return whether this process writes a log, like the jobs of the workflow."""
    return _log is not None


def print_error(message: str) -> None:
    """Print the error message of a failed command with :func:`print_line`, and record it."""
    print_line(f"nfpi: error: {message}")
    if _log is not None:
        _log.record_failure(message)


def record_epoch(epoch: int, epochs: int) -> None:
    """Record that an epoch of a training has ended, unless this process writes no log.

    Args:
        epoch: its number, from 1.
        epochs: number of all epochs.
    """
    if _log is not None:
        ends, state = _log.epoch_ends, _log.state
        ends.append(time.monotonic())
        state.epoch, state.epochs = epoch, epochs
        state.epoch_seconds = (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else None
        _log.write_state()


def print_line(line: str) -> None:
    """Print a line on stderr and, if stderr is redirected to a log, also on the original stderr."""
    line = escape_controls(line)
    print(line, file=sys.stderr, flush=True)
    if _log is not None:
        _log.write_to_stderr(f"{line}\n")


def run_with_log(path: Path | None, command: str, run: Callable[[], int]) -> int:
    """Call a function, append all output of the process during the call to a file, and record its state beside it.

    The output begins with a line that numbers the attempt, and includes the output of libraries and child processes.
    After an uncaught error, the status is 1, the log ends with its traceback and its message in one line, and stderr
    shows this line and the log's path. If the file cannot be opened, there is no log, as with `path=None`.

    Snakemake removes the log of a job before it retries the job: the first line of the next log says how the attempt
    before ended.

    Args:
        path: path of the log; None: no log is written.
        command: command line, for the log.
        run: function that returns the exit status.
    """
    originals = None if path is None else _redirect(path)
    if path is None or originals is None:
        return run()
    global _log
    streams = sys.stdout, sys.stderr
    _log = JobLog(path, originals[1])
    sys.stdout, sys.stderr = map(_open_text_stream, (1, 2))
    status = 1
    try:
        print(_describe_attempt(_log, command))
        status = run()
    except Exception as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        _log.record_failure(message)
        traceback.print_exc()
        print(f"nfpi: error: {message}", file=sys.stderr)
        _log.write_to_stderr(f"nfpi: error: {message} (its traceback: {path})\n")
    finally:
        _log.end_job(status)
        _log = None
        sys.stdout, sys.stderr = streams
        for descriptor, copy in zip((1, 2), originals, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
    return status


def _describe_attempt(log: JobLog, command: str) -> str:
    """Return the first line of the log."""
    line = f"attempt {log.state.attempt} of {command}, {datetime.now():%Y-%m-%d %H:%M:%S}, {socket.gethostname()}"
    if log.before is None:
        return line
    ended = "did not end" if log.before.state == "running" else log.before.state
    return f"{line}; attempt {log.before.attempt} {': '.join(filter(None, (ended, log.before.error)))}"


def _open_text_stream(descriptor: int) -> TextIO:
    """Open a stream without a buffer, so that all output is in the order in which it was written."""
    file: Any = _LogStream(descriptor, "w", closefd=False)  # Python's types ask for a buffer
    return io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", write_through=True)


def _redirect(path: Path) -> tuple[int, int] | None:
    """Redirect descriptors 1 and 2 to the log; return copies of the original ones, or None if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        print(f"nfpi: {path}: no log is written: {error.strerror}", file=sys.stderr, flush=True)
        return None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    originals = os.dup(1), os.dup(2)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)
    return originals


def read_last_lines(path: Path, count: int) -> list[str]:
    """Return the last non-empty lines of a log, with only the final state of a progress bar."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-count:] if count else []
