"""Errors of a stage, described in one line that says what to change. Imports nothing heavy."""

from __future__ import annotations

import errno
import re

_OUT_OF_MEMORY = (
    *("can't allocate memory", "out of memory", "bad_alloc", "unable to mmap", "shared memory"),
    "failed to map segment",
)
_LOST_WORKER = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")


def describe_fault(error: BaseException) -> str | None:
    """Describe in one line an error that a user can fix; None for an error of the program."""
    exhausted = describe_exhausted_memory(error)
    if exhausted is not None:
        return exhausted
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (ValueError, ArithmeticError, OSError)) and not isinstance(error, ZeroDivisionError):
        return format_error(error)
    return None


def format_error(error: BaseException, longest: int | None = None) -> str:
    """Return the message of an error in one line of at most `longest` characters; if it has none, its class."""
    return " ".join(str(error).split())[:longest] or type(error).__name__


def escape_controls(text: str) -> str:
    """Replace control characters, which a terminal obeys, by escapes: names of classes and files may be foreign."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def describe_exhausted_memory(error: BaseException, batch_size: str = "batch size") -> str | None:
    """Describe in one line that memory is exhausted; None for another error.

    Args:
        error: error that ended a stage.
        batch_size: setting that reduces the memory.
    """
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and _LOST_WORKER.search(text):
        return f"a worker process was killed, perhaps out of memory ({text[:200]}): try fewer workers"
    if _is_out_of_memory(error, text):
        reason = format_error(error, 200)
        return f"out of memory ({reason}): try a smaller {batch_size} or a machine with more"
    return None


def _is_out_of_memory(error: BaseException, text: str) -> bool:
    """Return whether memory is exhausted.

    NumPy raises MemoryError, torch RuntimeError or OutOfMemoryError (GPU), an import of a library ImportError.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError) and any(sign in text.lower() for sign in _OUT_OF_MEMORY)
