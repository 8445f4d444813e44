"""Targets, inputs, params and resources of the Snakemake rules, computed by typed functions that need no Snakemake."""

from nfpi.workflow.jobs import Jobs as Jobs
from nfpi.workflow.planning import Planning as Planning
from nfpi.workflow.targets import Patterns as Patterns
from nfpi.workflow.targets import Targets as Targets
