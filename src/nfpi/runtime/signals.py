"""Stopping on a signal: SIGTERM, sent when a machine is reclaimed, or SIGUSR1, SLURM's warning of the time limit."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_STATUS = 75
"""Exit status EX_TEMPFAIL of sysexits.h: the same command, run again, resumes."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
INTERRUPTS: list[int] = []
"""Not empty after Ctrl-C: libraries that are being imported turn KeyboardInterrupt into errors of their own."""
_GRACE = 1.0
"""Seconds within which a second signal counts as a duplicate: clusters signal both a process and its group."""


def note_interrupt(number: int, _: FrameType | None) -> None:
    """Handle Ctrl-C as Python does, and note it in INTERRUPTS."""
    INTERRUPTS.append(number)
    raise KeyboardInterrupt


class Interrupted(Exception):
    """A signal asked the process to stop; the message is one line.

    Attributes:
        signal_name: e.g. SIGTERM.
        kept: description of the state that the next run resumes from; empty: it starts from the beginning.
    """

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name
        self.kept = ""

    def __str__(self) -> str:
        if not self.kept:
            return f"stopped by {self.signal_name}: run the same command again"
        return f"stopped by {self.signal_name}: kept {self.kept}: run the same command again to resume"


class Interruption:
    """Request to stop, made by a signal; a SIGTERM more than a second after the first signal ends the process.

    SLURM sends such a SIGTERM at the time limit, after SIGUSR1 or an earlier SIGTERM as a warning.

    Args:
        at_once: whether a signal raises Interrupted immediately.
    """

    def __init__(self, at_once: bool = False) -> None:
        self._at_once = at_once
        self._name, self._first = "", 0.0

    def check(self) -> None:
        """Raise Interrupted if a signal has been received, and KeyboardInterrupt again if a destructor swallowed it."""
        if INTERRUPTS:
            raise KeyboardInterrupt
        if self._name:
            raise Interrupted(self._name)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal raise Interrupted anywhere in this block, which must not change state that is saved."""
        before, self._at_once = self._at_once, True
        try:
            self.check()
            yield
        finally:
            self._at_once = before

    def receive(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        if not self._name:
            self._name, self._first = signal.Signals(number).name, time.monotonic()
            if self._at_once:
                self.check()
        elif number == signal.SIGTERM and time.monotonic() - self._first > _GRACE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def interruptible(at_once: bool = False) -> Iterator[Interruption]:
    """Turn SIGTERM and SIGUSR1 into requests to stop while the block runs.

    The block calls :meth:`Interruption.check` where its state is consistent. Interrupted is raised there, or at the end
    of the block. Outside of the main thread signals are not handled.

    Args:
        at_once: whether Interrupted is raised immediately, anywhere in the block.
    """
    interruption = Interruption(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before = {number: signal.signal(number, interruption.receive) for number in SIGNALS}
    try:
        yield interruption
        interruption.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """During the block, hold back signals that stop a process; processes started in it inherit the signal mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent(_: int = 0) -> None:
    """Make a worker process ignore signals that are sent to its whole group: its parent handles them.

    SIGTERM from the parent itself still ends the worker, since multiprocessing ends its workers by this signal.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parents_signal, daemon=True).start()


def _end_with_parents_signal() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
