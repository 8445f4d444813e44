"""Uses of undocumented parts of Snakemake and of its SLURM executor, each with its reason.

The executor waits while SLURM's controller does not answer, e.g. because it is restarted. Otherwise, a job would use up
its retries in a minute, because `sbatch` fails within seconds. Moreover, after five failed status queries, Snakemake
would wait forever for its running jobs (snakemake-executor-plugin-slurm 2.8.0).
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nfpi.config.base import ConfigError
from nfpi.workflow.jobs import Jobs, has_gpu

_PLUGIN = "snakemake_executor_plugin_slurm"
_PING_SECONDS = 15.0
"""Time between two pings of the controller."""

_cancelled = threading.Event()
"""Set when Snakemake cancels its jobs, which ends all waiting."""


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
    if jobs.resolved.config.cluster:
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


def find_rules_with_jobs(workflow: Any) -> set[str]:
    """Return the rules that run a command.

    The events of Snakemake's log count the jobs of a call by rule, targets without a command among them.
    """
    return {rule.name for rule in workflow.rules if rule.message}


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


def controller_answers() -> bool:
    """Return whether SLURM's controller, or its backup, answers."""
    with suppress(subprocess.TimeoutExpired):
        return subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60).returncode == 0
    return False


def make_executor_wait() -> None:
    """Make the SLURM executor wait while the controller does not answer; no-op if that executor is not loaded."""
    plugin: Any = sys.modules.get(_PLUGIN)
    if plugin is None or hasattr(plugin, "nfpi_waits"):
        return
    plugin.nfpi_waits = True
    executor = plugin.Executor
    executor.run_job = _wrap_submission(executor.run_job)
    executor.run_array_jobs = _wrap_submission(executor.run_array_jobs)
    executor.check_active_jobs = _wrap_check(executor.check_active_jobs)
    executor.cancel = _wrap_cancellation(executor.cancel)


def _wrap_submission(submit: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Return a method that waits for the controller, then calls `submit`; Snakemake calls it in a separate thread."""

    def wait_and_submit(self: Any, jobs: Any) -> None:
        warned = False
        while not _cancelled.is_set() and not controller_answers():
            if not warned:
                self.logger.warning("SLURM's controller does not answer: jobs are submitted when it does.")
                warned = True
            _cancelled.wait(_PING_SECONDS)
        if not _cancelled.is_set():  # jobs submitted now would not be cancelled
            submit(self, jobs)

    return wait_and_submit


def _wrap_check(check: Callable[[Any, list[Any]], AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """Return a method that calls `check`, but yields all jobs as running if the controller or all queries fail."""

    warned = False

    async def check_or_keep(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        nonlocal warned
        if not active_jobs:  # this may be called before the executor's constructor has finished
            async for job in check(self, active_jobs):
                yield job
            return
        answers = await asyncio.to_thread(controller_answers)
        if not answers and not warned:
            self.logger.warning("SLURM's controller does not answer: running jobs are checked again later.")
        warned = not answers
        if not answers:
            for job in active_jobs:
                yield job
            return
        failures = self._status_query_failures
        kept = 0
        async for job in check(self, active_jobs):
            kept += 1
            yield job
        if not kept and self._status_query_failures - failures >= self.workflow.executor_settings.status_attempts:
            for job in active_jobs:  # all queries failed: no job has a known status
                yield job

    return check_or_keep


def _wrap_cancellation(cancel: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a method that ends all waiting, then calls `cancel`, which cancels all jobs on Ctrl-C."""

    def stop_waiting_and_cancel(self: Any) -> None:
        _cancelled.set()
        cancel(self)

    return stop_waiting_and_cancel
