"""The page of results, at the end of a call of the workflow."""

from __future__ import annotations

import logging

from nfpi.workflow.plan import Plan


def write_page_at_end(logger: logging.Logger, plan: Plan) -> None:
    """Write the page of the preset from what is there, and say where; no job depends on it.

    What goes wrong is said in one line: a call ends as it would have ended without a page.

    Args:
        logger: Snakemake's.
        plan: of the call.
    """
    root = plan.layout.root
    if not root.is_dir():
        return
    try:
        from nfpi.page.described import describe, write_described  # pandas and matplotlib: planning needs neither
        from nfpi.page.write import write_page

        write_described(root, describe(plan.config))
        logger.info(f"page:   {write_page(root)}")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.error(f"The page of results was not written: {reason}")
