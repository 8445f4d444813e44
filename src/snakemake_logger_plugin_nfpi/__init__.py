"""What a call of the workflow prints (nfpi.workflow.terminal) as a logger of Snakemake: `logger: nfpi` in a profile.

Snakemake finds its plugins by the name of their package and imports all of them in every call, also those of other
projects: what this one needs is imported when it is used.
"""

from __future__ import annotations

import logging
import sys

from snakemake_interface_logger_plugins.base import LogHandlerBase


class LogHandler(LogHandlerBase):
    """Prints one line a job."""

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = False
    needs_rulegraph = False

    def __post_init__(self) -> None:
        """Take over the stream that Snakemake would print on."""
        from snakemake.logging import ColorizingTextHandler

        from nfpi.workflow.terminal import make_output

        stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self._snakemakes = ColorizingTextHandler(self.common_settings.nocolor, stream)
        self._output = make_output(self.common_settings, self._snakemakes)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        """Take the formatter of Snakemake's own lines."""
        super().setFormatter(fmt)
        self._snakemakes.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        """Print what a record says."""
        try:
            self._output.receive(record, self.format)
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Print what stands at the very end."""
        try:
            self._output.finish()
        finally:
            super().close()
