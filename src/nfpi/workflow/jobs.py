"""Log, benchmark, threads and resources of the rules' jobs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from nfpi.config.cluster import JOB_NAMES, JobName, Resources, compute_job_resources, count_job_threads
from nfpi.config.resolution import Resolved
from nfpi.runs import BENCHMARKS_FOLDER, LOGS_FOLDER
from nfpi.runtime.allocation import CHOICE, HIDING, VISIBLE
from nfpi.runtime.job_log import LOG_SUFFIX
from nfpi.stages.jobs import Wildcards


@dataclass(frozen=True)
class Jobs:
    """Values of the directives `log`, `benchmark`, `threads` and `resources` of the rules, and related ones."""

    resolved: Resolved

    def log(self, name: str, template: str) -> str:
        """Return the path of the log of the job `name` that writes the folder `template`."""
        return self.resolved.layout.path(f"{LOGS_FOLDER}/{template}/{name}{LOG_SUFFIX}")

    def benchmark(self, name: str, template: str) -> str:
        """Return the path where Snakemake records time and memory of the job `name` that writes `template`."""
        return self.resolved.layout.path(f"{BENCHMARKS_FOLDER}/{template}/{name}.tsv")

    def threads(self, name: JobName) -> int:
        """Return the threads of a job; Snakemake sets OMP_NUM_THREADS to them, or to the available cores if fewer."""
        return count_job_threads(self._get_resources(name), self.resolved.config.cluster)

    def priority(self, name: JobName) -> int:
        """Return the priority of a job among those that are ready: the higher, the longer the chain after it.

        Otherwise, cores would idle at the end of a call while another one has a whole training to do.
        """
        return len(JOB_NAMES) - JOB_NAMES.index(name)

    def devices(self, name: JobName) -> Callable[[Wildcards, int], int]:
        """Return a params function for a job's number of devices; with the argument `threads`, it is not compared."""
        return lambda wildcards, threads: max(1, self._get_resources(name).gpu)

    def resources(self, name: JobName, **changes: int) -> dict[str, Callable[[Wildcards, int], int | str]]:
        """Return the resources of a job except threads, as functions of the attempt.

        Retries of a job that cannot resume get more time and memory.

        Args:
            name: key in `resources:`.
            **changes: values that replace those in `resources:`.
        """
        resources = self._get_resources(name).model_copy(update=changes)
        cluster = self.resolved.config.cluster

        def make_resource(kind: str) -> Callable[[Wildcards, int], int | str]:
            return lambda wildcards, attempt: compute_job_resources(name, resources, cluster, attempt)[kind]

        return {kind: make_resource(kind) for kind in compute_job_resources(name, resources, cluster)}

    def list_requests(self, resources: Iterable[str]) -> str:
        """Return what a job requests from the cluster, as a message in which Snakemake fills in the values.

        Args:
            resources: names of the rule's resources.
        """
        cluster = self.resolved.config.cluster
        omitted = {"local_gpu", "gpu", "tmpdir"} | (set() if cluster is not None and cluster.ask_memory else {"mem_mb"})
        kinds = [kind for kind in resources if not kind.startswith("_") and kind not in omitted]
        return " ".join(f"{kind}={{resources.{kind}}}" for kind in kinds)

    def _get_resources(self, name: JobName) -> Resources:
        return self.resolved.config.resources.get(name, Resources())


def has_gpu() -> bool:
    """Return whether this machine has a GPU (of NVIDIA or Apple) that jobs may use."""
    if os.environ.get(CHOICE) == "cpu" or os.environ.get(VISIBLE, "0").strip() in HIDING:
        return False
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return True
    with suppress(OSError, subprocess.TimeoutExpired):
        answer = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=5)
        return answer.returncode == 0 and "GPU" in answer.stdout
    return False
