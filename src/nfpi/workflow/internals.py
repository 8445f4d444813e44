"""Uses of undocumented parts of Snakemake, each with its reason."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nfpi.config.base import ConfigError
from nfpi.runtime.manifests import find_faults
from nfpi.stages.base import MANIFEST
from nfpi.workflow.jobs import Jobs, has_gpu
from nfpi.workflow.slurm import make_executor_wait


def keep_outputs() -> None:
    """Make Snakemake keep the outputs of a job, and what it recorded of them, until the stage replaces them.

    Snakemake removes outputs before a job and after its failure, since a command may leave incomplete ones, and records
    the settings of a job that failed. A stage replaces all outputs at once, or leaves a manifest that does not agree
    with them; only then are they removed after a failure.
    """
    from snakemake.jobs import Job

    remove_outputs, postprocess = Job.cleanup, Job.postprocess

    async def remove_logs(job: Any) -> None:
        for log in job.log:
            await log.remove()

    async def remove_incomplete_outputs(job: Any, *arguments: Any) -> None:
        manifest = Path(getattr(job.output, MANIFEST, ""))
        if manifest.is_file() and find_faults(manifest)[1]:
            await remove_outputs(job, *arguments)

    async def record_success(job: Any, *arguments: Any, error: bool = False, **options: Any) -> None:
        settings = job.dag.workflow.execution_settings
        records = settings.keep_metadata
        settings.keep_metadata = records and not error
        try:
            await postprocess(job, *arguments, error=error, **options)
        finally:
            settings.keep_metadata = records

    Job.remove_existing_output, Job.cleanup, Job.postprocess = remove_logs, remove_incomplete_outputs, record_success


def use_this_machine(workflow: Any, cores: int) -> None:
    """Run one GPU job at a time on this machine; without --cores and --jobs, use all its cores.

    A profile cannot set this: `cores` in a profile would also limit the threads of cluster jobs to the cores of the
    login node, and a profile does not know whether this machine has a GPU.
    """
    if "local_gpu" not in workflow.global_resources and has_gpu():
        workflow.global_resources["local_gpu"] = 1
    if workflow.resource_settings.cores is None and workflow.resource_settings.nodes is None:
        workflow.resource_settings.cores = cores
        workflow.global_resources["_cores"] = cores


def prepare_submission(workflow: Any, jobs: Jobs) -> None:
    """On a cluster, add what a job asks for to its rule's message, and wait while SLURM does not answer.

    Snakemake prints the resources of rules without a message only. To be called after all rules are defined, when
    Snakemake knows which of them are local.

    Raises:
        ConfigError: jobs are submitted to a cluster, and --configfile replaces the settings of the profile.
    """
    if jobs.plan.config.cluster:
        make_executor_wait()
        for rule in workflow.rules:
            if rule.message and rule.name not in workflow._localrules:
                rule.message += f"\n  {jobs.list_requests(rule.resources)}"
    elif workflow.resource_settings.nodes is not None and workflow.config_settings.configfiles:
        raise ConfigError(
            "--configfile replaces the settings of the profile: give both, as in --configfile slurm/settings.yaml "
            "mine.yaml, or use --config preset=mine.yaml (to ignore the profile's settings, add cluster: {} to your "
            "file)"
        )


def unlock(workflow: Any) -> None:
    """Remove the locks of this call; Snakemake's own function also removes those of other calls."""
    for path in getattr(workflow.persistence, "_lockfile", {}).values():
        Path(path).unlink(missing_ok=True)


def find_rules_with_jobs(workflow: Any) -> dict[str, str]:
    """Return, for each rule that runs a command, the stem of its benchmark files, or its name if it has none.

    The events of Snakemake's log count the jobs of a call by rule, targets without a command among them.
    """
    return {
        rule.name: Path(str(rule.benchmark)).stem if rule.benchmark else rule.name
        for rule in workflow.rules
        if rule.message
    }


def log_in_utf_8(logger: logging.Logger) -> None:
    """Write Snakemake's log in UTF-8, since the encoding of the locale may have no λ."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, io.TextIOWrapper):
            handler.stream.reconfigure(encoding="utf-8")


def list_requested_targets(workflow: Any) -> set[str]:
    """Return the rules or files that the call requests; empty: the default target. No hook receives them."""
    return set(workflow.dag_settings.targets)


def force_outdated(workflow: Any, find_fault: Callable[[Any, Any, str], str]) -> None:
    """Make jobs run again whose products are outdated, whatever Snakemake remembers of them.

    Snakemake compares settings and inputs only with its own records in `.snakemake`, which may be lost and do not
    move with the results. An input function that returns no file is the only code that it calls for each job of a plan
    before it decides what is to be run. To be called after all rules are defined.

    Args:
        workflow: Snakemake's workflow.
        find_fault: returns why the product of a rule, for some wildcards and with the manifest at some path, is
            outdated; empty if it is not.
    """

    def make_input(rule: Any) -> Callable[[Any], list[str]]:
        def force(wildcards: Any) -> list[str]:
            manifest = rule.output.manifest.apply_wildcards(wildcards)
            if find_fault(rule, wildcards, manifest):
                workflow.dag.forcefiles.add(manifest)
            return []

        return force

    if workflow.is_main_process:
        for rule in workflow.rules:
            if rule.output.get(MANIFEST):
                rule.set_input(outdated=make_input(rule))
