"""The command that writes the page of results."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.results.recorded.progress import require_root
from nfpi.stages.base import Command

logger = logging.getLogger(__name__)


class WritePage(Command):
    """Write the page of a folder of results, index.html.

    The page is a single file of all present results: tables, figures, and each run with its curves, samples and
    predictions. Labels and units of your own metrics need `nfpi --extensions FILE page …`.
    """

    command = "page"

    results: CliPositionalArg[Path]
    """results/{preset}"""

    def run(self) -> None:
        """Write the page, and print its path.

        Raises:
            FileNotFoundError: the folder does not exist, or has the results of several presets.
        """
        from nfpi.page.write import write_page

        require_root(self.results)
        logger.info("%s", write_page(self.results))
