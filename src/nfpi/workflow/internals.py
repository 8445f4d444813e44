"""The few places where the workflow reads or sets what Snakemake does not document, each with its reason."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

from nfpi.config import ConfigError
from nfpi.workflow.jobs import Jobs, gpu_in_this_machine
from nfpi.workflow.slurm import wait_for_controller


def use_this_machine(workflow: Any, cores: int) -> None:
    """Let jobs with a GPU take turns on this machine; without --cores and --jobs, use all its cores.

    No profile can say that about cores: it would say so with --executor too, and cut the threads of a cluster's jobs to
    the cores of the machine they are submitted from. Whether there is a GPU is seen here only.
    """
    if "local_gpu" not in workflow.global_resources and gpu_in_this_machine():
        workflow.global_resources["local_gpu"] = 1
    if workflow.resource_settings.cores is None and workflow.resource_settings.nodes is None:
        workflow.resource_settings.cores = cores
        workflow.global_resources["_cores"] = cores


def show_requests(workflow: Any, jobs: Jobs) -> None:
    """Where jobs are submitted to a cluster, let what each asks for stand beside what it does, in dry runs too, and let
    submissions wait while the cluster's controller does not answer.

    Which rules are local is known to Snakemake only, once all are defined.

    Raises:
        ConfigError: jobs go to a cluster, and a --configfile has taken the place of the profile's.
    """
    if jobs.plan.config.cluster:
        wait_for_controller()
        for rule in workflow.rules:
            if rule.message and rule.name not in workflow._localrules:
                rule.message += f"\n  {jobs.sbatch(set(rule.resources))}"
    elif workflow.resource_settings.nodes is not None and workflow.config_settings.configfiles:
        raise ConfigError(
            "a --configfile takes the place of the profile's settings: name both, as in --configfile "
            "slurm/settings.yaml mine.yaml, or use --config preset=mine.yaml (without a profile's: cluster: {})"
        )


def rule_names(workflow: Any) -> list[str]:
    """Names of the rules that are defined so far."""
    return [rule.name for rule in workflow.rules]


def timed_rules(workflow: Any) -> dict[str, str]:
    """The rules whose jobs run something, with the name that their times are noted under."""
    return {rule.name: Path(str(rule.benchmark)).stem for rule in workflow.rules if rule.benchmark}


def log_in_utf_8(logger: logging.Logger) -> None:
    """Write Snakemake's log in UTF-8: it opens it in the locale's encoding, which may have no λ."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and isinstance(handler.stream, io.TextIOWrapper):
            handler.stream.reconfigure(encoding="utf-8")


def requested_targets(workflow: Any) -> set[str]:
    """What the call asks for, by rules or files; nothing: the default target."""
    return set(workflow.dag_settings.targets)
