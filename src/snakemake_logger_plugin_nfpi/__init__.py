"""Logger plugin for Snakemake, enabled by `logger: nfpi` in a profile; it prints with nfpi.workflow.terminal.

Snakemake imports every installed plugin in every call, even in other projects. Therefore this plugin imports its
dependencies only when it is used.
"""

from __future__ import annotations

import logging
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase


class LogHandler(LogHandlerBase):
    """Log handler that prints one line per job."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Take over the stream of Snakemake's own handler."""
        from snakemake.logging import ColorizingTextHandler

        from nfpi.workflow.terminal import make_output

        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self._default_handler = ColorizingTextHandler(self.common_settings.nocolor, stream)
        self._output = make_output(self.common_settings, self._default_handler)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        """Set the formatter of Snakemake's own lines."""
        super().setFormatter(fmt)
        self._default_handler.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            self._output.print_record(record, self.format)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Print the last lines at the end of a run of Snakemake."""
        try:
            self._output.print_ending()
        finally:
            super().close()
