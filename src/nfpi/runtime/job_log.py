"""The log of a job (`nfpi --log FILE`), to which all output of the process is appended.

The error message of a stage is also printed on the original stderr of the process, so that it is seen even if the log
cannot be written.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TextIO

RANK_AND_PORT = "NFPI_PROCESS"
"""Environment variable that is set in all but the first process of a training on several devices
(:mod:`nfpi.runtime.processes`): rank of the process, and port of the first one. Only the first one writes the log."""

_ATTEMPT = re.compile(r"^attempt \d+ of ", re.MULTILINE)


def is_first_process() -> bool:
    """Return whether this is the only process of a training, or the one that started the others."""
    return RANK_AND_PORT not in os.environ


class JobLog:
    """Writer of the log of this process.

    Args:
        stderr: file descriptor of the stderr that the process was started with.
    """

    def __init__(self, stderr: int) -> None:
        self._stderr = stderr
        self._in_use = True

    def write_to_stderr(self, line: str) -> None:
        """Print a line on the original stderr, unless :meth:`write` already sends all output there."""
        if self._in_use:
            with contextlib.suppress(OSError):
                os.write(self._stderr, line.encode(errors="backslashreplace"))

    def write(self, data: bytes | memoryview) -> None:
        """Append to the log; if that fails, write this and all later output to the original stderr."""
        remaining = memoryview(data)
        while remaining:
            try:
                remaining = remaining[os.write(2, remaining) :]
            except OSError:
                if not self._in_use:
                    return  # nowhere left to print
                self._in_use = False
                for descriptor in (1, 2):
                    os.dup2(self._stderr, descriptor)
                remaining = memoryview(data)  # repeats the whole line


class _Stream(io.RawIOBase):
    """Stream that replaces Python's stdout and stderr while a log is written."""

    def __init__(self, log: JobLog) -> None:
        self._log = log

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]
        self._log.write(data)
        return len(data)


_log: JobLog | None = None


def writes_log() -> bool:
    """Return whether this process writes a log, like the jobs of the workflow."""
    return _log is not None


def print_error(message: str) -> None:
    """Print the error message of a failed command with :func:`print_line`."""
    print_line(f"nfpi: error: {message}")


def print_line(line: str) -> None:
    """Print a line on stderr and, if stderr is redirected to a log, also on the original stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    if _log is not None:
        _log.write_to_stderr(f"{line}\n")


def run_with_log(path: Path | None, command: str, run: Callable[[], int]) -> int:
    """Call a function, and append all output of the process during the call to a file.

    The output begins with a line that numbers the attempt, and includes the output of libraries and child processes.
    After an uncaught error, the status is 1, the log ends with its traceback and its message in one line, and stderr
    shows this line and the log's path. If the file cannot be opened, there is no log, as with `path=None`; if it cannot
    be written, the output is printed on stderr.

    Snakemake removes the log of a job before it retries the job. Therefore the file has a second hard link,
    `.NAME.attempts`, until an attempt succeeds; the next attempt restores the log from this link. On file systems
    without hard links, the log of earlier attempts is lost.

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
    _log = JobLog(originals[1])
    sys.stdout, sys.stderr = _open_text_stream(_log), _open_text_stream(_log)
    try:
        attempt = _count_attempts(path) + 1
        print(f"attempt {attempt} of {command}, {datetime.now():%Y-%m-%d %H:%M:%S}, {socket.gethostname()}")
        status = run()
        if status == 0:
            _name_second_link(path).unlink(missing_ok=True)
        return status
    except Exception as error:
        traceback.print_exc()
        line = f"nfpi: error: {type(error).__name__}: {' '.join(str(error).split())}"
        print(line, file=sys.stderr)  # `nfpi status` recognises a failed job by this last line
        _log.write_to_stderr(f"{line} (its traceback: {path})\n")
        return 1
    finally:
        _log = None
        sys.stdout, sys.stderr = streams
        for descriptor, copy in zip((1, 2), originals, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _open_text_stream(log: JobLog) -> TextIO:
    stream = _Stream(log)
    return io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]


def _redirect(path: Path) -> tuple[int, int] | None:
    """Redirect descriptors 1 and 2 to the log; return copies of the original ones, or None if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _restore(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        print(f"nfpi: {path}: no log is written: {error.strerror}", file=sys.stderr, flush=True)
        return None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    originals = os.dup(1), os.dup(2)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)
    with contextlib.suppress(OSError):
        second = _name_second_link(path)
        if not second.exists():
            os.link(path, second)
    return originals


def _name_second_link(path: Path) -> Path:
    return path.with_name(f".{path.name}.attempts")


def _restore(path: Path) -> None:
    """Restore the log of earlier attempts under its name, if it was removed."""
    second = _name_second_link(path)
    if path.exists():
        if second.exists() and not path.samefile(second):
            second.unlink()
    elif second.exists():
        os.link(second, path)


def _count_attempts(path: Path) -> int:
    """Count the attempts in the log."""
    try:
        return len(_ATTEMPT.findall(path.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return 0


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
