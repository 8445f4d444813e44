"""Targets, inputs, params and resources of the Snakemake rules, computed by typed functions that need no Snakemake."""

from nfpi.workflow.declarations import Declarations
from nfpi.workflow.inputs import Inputs
from nfpi.workflow.jobs import Jobs
from nfpi.workflow.plan import Plan
from nfpi.workflow.sources import Sources
from nfpi.workflow.targets import Targets

__all__ = ["Declarations", "Inputs", "Jobs", "Plan", "Sources", "Targets"]
