"""Targets, inputs, params and resources of the Snakemake rules, computed by typed functions that need no Snakemake."""

from nfpi.workflow.declarations import Declarations as Declarations
from nfpi.workflow.inputs import Inputs as Inputs
from nfpi.workflow.jobs import Jobs as Jobs
from nfpi.workflow.outdated import Outdated as Outdated
from nfpi.workflow.plan import Plan as Plan
from nfpi.workflow.sources import Sources as Sources
from nfpi.workflow.targets import Targets as Targets
