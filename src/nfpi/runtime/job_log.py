"""The log of a job (`nfpi --log FILE`): all that the process prints is appended to it.

What has to be seen even if the log cannot be written, the line that a stage fails with, is printed on the stderr that
the process was started with too.
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

PLACE = "NFPI_PROCESS"
"""Environment variable of the further processes of a training on several devices (:mod:`nfpi.runtime.processes`):
their rank, and the port that the first one listens at. They leave the log to the first one."""

_ATTEMPT = re.compile(r"^attempt \d+ of ", re.MULTILINE)


class JobLog:
    """Where this process prints.

    Args:
        stderr: descriptor of the stderr that the process was started with.
    """

    def __init__(self, stderr: int) -> None:
        self._stderr = stderr
        self._in_use = True

    def tell(self, line: str) -> None:
        """Print a line on the first stderr, unless all lines are printed there."""
        if self._in_use:
            with contextlib.suppress(OSError):
                os.write(self._stderr, line.encode(errors="backslashreplace"))

    def write(self, data: bytes | memoryview) -> None:
        """Append to the log; where that fails, print this and all that follows on the first stderr."""
        remaining = memoryview(data)
        while remaining:
            try:
                remaining = remaining[os.write(2, remaining) :]
            except OSError:
                if not self._in_use:
                    return  # there is no place left
                self._in_use = False
                for descriptor in (1, 2):
                    os.dup2(self._stderr, descriptor)
                remaining = memoryview(data)  # all of the line that did not fit


class _Stream(io.RawIOBase):
    """Standard output and error of Python while a log is in use."""

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


def in_use() -> bool:
    """Whether this process is a job with a log, as of the workflow."""
    return _log is not None


def print_error(message: str) -> None:
    """Print the line that a command fails with, as :func:`print_line` does."""
    print_line(f"nfpi: error: {message}")


def print_line(line: str) -> None:
    """Print a line on stderr, and where that is a log, on the first stderr too."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
    if _log is not None:
        _log.tell(f"{line}\n")


def run_with_log(path: Path | None, command: str, run: Callable[[], int]) -> int:
    """Call a function, and append all that the process prints meanwhile to a file.

    It begins with a line that has the number of the attempt. The output of libraries and of child processes is appended
    too. If the file cannot be opened or written, all is printed on stderr instead. An error that is not caught gives
    status 1, its traceback in the log, and one line on stderr.

    Snakemake removes the log of a job before it tries the job again. So the file has a second name until an attempt
    ends well, `.NAME.attempts`, by which the next one finds what the earlier ones printed. (Not on file systems without
    hard links.)

    Args:
        path: the log; None: there is none, and nothing is changed.
        command: what is attempted, for the log.
        run: it gives the status to exit with.
    """
    before = None if path is None else _redirect(path)
    if path is None or before is None:
        return run()
    global _log
    streams = sys.stdout, sys.stderr
    _log = JobLog(before[1])
    sys.stdout, sys.stderr = _text(_log), _text(_log)
    try:
        print(f"attempt {_attempts(path) + 1} of {command}, {datetime.now():%Y-%m-%d %H:%M:%S}, {socket.gethostname()}")
        status = run()
        if status == 0:
            _second_name(path).unlink(missing_ok=True)
        return status
    except Exception as error:
        traceback.print_exc()
        _log.tell(f"nfpi: error: {type(error).__name__}: {' '.join(str(error).split())} (its traceback: {path})\n")
        return 1
    finally:
        _log = None
        sys.stdout, sys.stderr = streams
        for descriptor, copy in zip((1, 2), before, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _text(log: JobLog) -> TextIO:
    stream = _Stream(log)
    return io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", write_through=True)  # type: ignore[type-var]


def _redirect(path: Path) -> tuple[int, int] | None:
    """Let descriptors 1 and 2 append to the log; copies of what they were before, or None if that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _restore(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    except OSError as error:
        print(f"nfpi: {path}: no log is written: {error.strerror}", file=sys.stderr, flush=True)
        return None
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    before = os.dup(1), os.dup(2)
    for target in (1, 2):
        os.dup2(descriptor, target)
    os.close(descriptor)
    with contextlib.suppress(OSError):
        second = _second_name(path)
        if not second.exists():
            os.link(path, second)
    return before


def _second_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.attempts")


def _restore(path: Path) -> None:
    """Give the log of earlier attempts its name back, if it was removed."""
    second = _second_name(path)
    if path.exists():
        if second.exists() and not path.samefile(second):
            second.unlink()
    elif second.exists():
        os.link(second, path)


def _attempts(path: Path) -> int:
    """How many attempts there are in the log."""
    try:
        return len(_ATTEMPT.findall(path.read_text(encoding="utf-8", errors="replace")))
    except OSError:
        return 0


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty; of a progress bar only what it showed last."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in lines if line][-count:]
