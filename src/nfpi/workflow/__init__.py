"""Targets, inputs, params and resources of the Snakemake rules, computed by typed functions that need no Snakemake."""

from nfpi.workflow.jobs import Jobs as Jobs
from nfpi.workflow.plan import Patterns as Patterns
from nfpi.workflow.plan import Plan as Plan
from nfpi.workflow.plan import Targets as Targets
from nfpi.workflow.planning import Planning as Planning
