"""Make Snakemake's SLURM executor wait while SLURM's controller does not answer, e.g. because it is restarted.

Without this, a job uses up its retries in a minute, because `sbatch` fails within seconds. Moreover, after five failed
status queries, Snakemake waits forever for its running jobs (snakemake-executor-plugin-slurm 2.8.0). And if the time
limit of a job passes meanwhile, the controller counts the job as timed out when it is back, although it has ended well.
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

from nfpi.runtime.manifests import identify_manifest
from nfpi.stages.jobs import MANIFEST

_PLUGIN = "snakemake_executor_plugin_slurm"
_PING_SECONDS = 15.0
"""Time between two pings of the controller."""

_cancelled = threading.Event()
"""Set when Snakemake cancels its jobs, which ends all waiting."""
_manifests: dict[Any, tuple[int, int] | None] = {}
"""Manifests of the outputs of jobs before their submission."""


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
    executor.run_jobs = _wrap_jobs(executor.run_jobs)
    executor.report_job_error = _wrap_error(executor.report_job_error)
    executor.run_job = _wrap_submission(executor.run_job)
    executor.run_array_jobs = _wrap_submission(executor.run_array_jobs)
    executor.check_active_jobs = _wrap_check(executor.check_active_jobs)
    executor.cancel = _wrap_cancellation(executor.cancel)


def _wrap_jobs(run: Callable[[Any, list[Any]], None]) -> Callable[[Any, list[Any]], None]:
    """Return a method that notes the manifests of the jobs' outputs, then calls `run`."""

    def note_and_run(self: Any, jobs: list[Any]) -> None:
        _manifests.update({job: _identify_manifest(job) for job in jobs})
        run(self, jobs)

    return note_and_run


def _identify_manifest(job: Any) -> tuple[int, int] | None:
    return identify_manifest(Path(getattr(job.output, MANIFEST, "")))


def _wrap_error(report: Callable[..., None]) -> Callable[..., None]:
    """Return a method that calls `report` unless the job has written its manifest, which a stage does last."""

    def report_unless_complete(self: Any, job: Any, *arguments: Any, **options: Any) -> None:
        if _identify_manifest(job.job) in (None, _manifests.get(job.job)):
            report(self, job, *arguments, **options)
        else:
            self.logger.warning(f"SLURM counts job {job.external_jobid} as failed, but its result is complete.")
            self.report_job_success(job)

    return report_unless_complete


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
