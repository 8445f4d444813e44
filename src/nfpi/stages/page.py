"""Run `nfpi page`."""

from __future__ import annotations

import logging

from nfpi.page.write import write_page
from nfpi.results.recorded.progress import require_root
from nfpi.stages.options import WritePage

logger = logging.getLogger(__name__)


def write(command: WritePage) -> None:
    """Write the page, and print its path.

    Raises:
        FileNotFoundError: the folder does not exist, or has the results of several presets.
    """
    require_root(command.results)
    logger.info("%s", write_page(command.results))
