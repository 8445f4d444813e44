"""Logger plugin for Snakemake, enabled by `logger: nfpi` in a profile; it prints with nfpi.workflow.terminal.

With `--verbose`, `--quiet`, `--printshellcmds` or `--debug-dag`, it prints as Snakemake does.

Snakemake imports every installed plugin in every call, even in other projects. Therefore this plugin imports its
dependencies only when it is used.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase


def _leave(*_: object) -> None:
    """End the process in one line."""
    os.write(2, b"stopped\n")
    os._exit(130)


class LogHandler(LogHandlerBase):
    """Log handler that prints one line per job."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Take over the stream of Snakemake's own handler, or the handler itself."""
        interrupt = signal.getsignal(signal.SIGINT)  # not callable where the shell has set it to be ignored
        if callable(interrupt):
            signal.signal(signal.SIGINT, _leave)
        from snakemake.logging import ColorizingTextHandler

        from nfpi.workflow.terminal import JobLines

        settings = self.common_settings
        stream = sys.stdout if settings.stdout else sys.stderr
        plain = settings.verbose or settings.quiet or settings.printshellcmds or settings.debug_dag
        self._plain_handler = ColorizingTextHandler(settings.nocolor, stream) if plain else None
        self._lines = JobLines(stream, settings.dryrun)
        if callable(interrupt):
            self._lines.notice_interrupts(interrupt, _leave)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        """Set the formatter of Snakemake's own lines."""
        super().setFormatter(fmt)
        if self._plain_handler is not None:
            self._plain_handler.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if self._plain_handler is not None:
            try:
                self._plain_handler.emit(record)
            except BrokenPipeError:  # the reader of a long dry run, such as `head`, has read enough
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._plain_handler.stream.fileno())
            return
        try:
            self._lines.print_record(record, self.format)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Print the last lines at the end of a run of Snakemake."""
        try:
            if self._plain_handler is None:
                self._lines.print_ending()
        finally:
            super().close()
