"""Run Snakemake such that it queries SLURM every second, so that tests need not wait."""

import snakemake_executor_plugin_slurm
from snakemake.cli import main

import nfpi.workflow.internals

snakemake_executor_plugin_slurm.Executor.next_seconds_between_status_checks = property(
    lambda self: 1, lambda self, seconds: None
)
nfpi.workflow.internals._PING_SECONDS = 1
main()
