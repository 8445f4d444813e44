"""Write the page of results at the end of a call of the workflow."""

from __future__ import annotations

import logging

from nfpi.workflow.plan import Plan


def write_page_at_end(logger: logging.Logger, plan: Plan) -> None:
    """Write the page of the preset from the present results and log its path.

    No job depends on the page: an error is logged in one line and does not change how the call ends.

    Args:
        logger: Snakemake's logger.
        plan: settings and paths of the call.
    """
    root = plan.layout.root
    if not root.is_dir():
        return
    try:
        from nfpi.page.descriptions import describe_preset, write_descriptions  # slow: imports pandas and matplotlib
        from nfpi.page.write import write_page

        write_descriptions(root, describe_preset(plan.config))
        logger.info(f"page:   {write_page(root)}")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        logger.error(f"The page of results was not written: {reason}")
