"""Waiting for SLURM's controller, which is now and then restarted, where Snakemake's executor does not.

While the controller does not answer, `sbatch` fails in seconds, so that a job uses up its retries in a minute, and a
status query that fails five times makes Snakemake wait for ever for the jobs that run (seen in version 2.8.0 of the
package snakemake-executor-plugin-slurm). Both wait here until the controller answers.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

_PLUGIN = "snakemake_executor_plugin_slurm"
_SECONDS = 15.0
"""Time between two questions to the controller."""

_cancelled = threading.Event()
"""Set when Snakemake cancels its jobs: nothing waits any longer."""


def controller_answers() -> bool:
    """Whether SLURM's controller, or its backup, answers."""
    try:
        done = subprocess.run(["scontrol", "ping"], capture_output=True, timeout=60)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def wait_for_controller() -> None:
    """Let Snakemake's SLURM executor wait for the controller; nothing is done where that executor is not loaded."""
    plugin: Any = sys.modules.get(_PLUGIN)
    if plugin is None or hasattr(plugin, "nfpi_waits"):
        return
    plugin.nfpi_waits = True
    executor = plugin.Executor
    executor.run_job = _after_waiting(executor.run_job)
    executor.run_array_jobs = _after_waiting(executor.run_array_jobs)
    executor.check_active_jobs = _all_while_it_is_away(executor.check_active_jobs)
    executor.cancel = _ending_the_wait(executor.cancel)


def _after_waiting(submit: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A method that submits jobs, in a thread of its own."""

    def submit_later(self: Any, jobs: Any) -> None:
        told = False
        while not _cancelled.is_set() and not controller_answers():
            if not told:
                self.logger.warning("SLURM's controller does not answer: jobs are submitted when it does.")
                told = True
            _cancelled.wait(_SECONDS)
        submit(self, jobs)

    return submit_later


def _all_while_it_is_away(check: Callable[[Any, list[Any]], AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    """The method that asks how jobs are, and gives those that are still waiting or running."""

    told = False

    async def check_or_keep(self: Any, active_jobs: list[Any]) -> AsyncIterator[Any]:
        nonlocal told
        if not active_jobs:  # nothing to ask, and perhaps before the executor is complete: its thread begins first
            async for job in check(self, active_jobs):
                yield job
            return
        answers = await asyncio.to_thread(controller_answers)
        if not answers and not told:
            self.logger.warning("SLURM's controller does not answer: jobs that run are asked for again later.")
        told = not answers
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
            for job in active_jobs:  # all questions failed, so nothing was said of any job
                yield job

    return check_or_keep


def _ending_the_wait(cancel: Callable[[Any], None]) -> Callable[[Any], None]:
    """The method that cancels all jobs, on Ctrl-C."""

    def cancel_now(self: Any) -> None:
        _cancelled.set()
        cancel(self)

    return cancel_now
