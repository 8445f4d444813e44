"""Run `nfpi page`."""

from __future__ import annotations

import logging

from nfpi.page.write import write_page
from nfpi.stages.options import WritePage

logger = logging.getLogger(__name__)


def write(command: WritePage) -> None:
    """Write the page, and print its path."""
    logger.info("%s", write_page(command.results))
