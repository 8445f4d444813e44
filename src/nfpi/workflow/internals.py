"""Uses of undocumented parts of Snakemake, each with its reason."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

from nfpi.config.base import ConfigError
from nfpi.workflow.jobs import Jobs, has_gpu
from nfpi.workflow.slurm import make_executor_wait


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


def let_keys_decide() -> None:
    """Let no time of a file decide whether a job runs.

    Copied or moved results have other times. What is to be made again is forced (:func:`force`), with all that depends
    on it. Snakemake has no option for this: `--rerun-triggers` does not affect times of files.
    """
    from snakemake.io import _IOFile

    async def is_newer(file: Any, time: Any) -> bool:
        return False

    _IOFile.is_newer = is_newer


def force(workflow: Any, path: str) -> None:
    """Run the job with an output of this path, whatever Snakemake remembers of it; to be called by input functions."""
    workflow.dag.forcefiles.add(path)
