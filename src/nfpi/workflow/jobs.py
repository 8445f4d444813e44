"""Log, benchmark, threads and resources of the rules' jobs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from nfpi.config import JobName, Resources, compute_job_resources, count_job_threads
from nfpi.runs import BENCHMARKS_FOLDER, LOGS_FOLDER
from nfpi.runtime.gpu_variables import CHOICE, HIDING, VISIBLE
from nfpi.workflow.plan import Plan, Wildcards

SBATCH = {
    "slurm_account": "--account={resources.slurm_account}",
    "slurm_partition": "--partition={resources.slurm_partition}",
    "constraint": "--constraint={resources.constraint}",
    "qos": "--qos={resources.qos}",
    "gres": "--gres={resources.gres}",
    "cpus_per_task": "--cpus-per-task={resources.cpus_per_task}",
    "runtime": "--time={resources.runtime}",
    "mem_mb": "--mem={resources.mem_mb}",
    "slurm_extra": "{resources.slurm_extra}",
}
"""The option of sbatch that Snakemake's SLURM executor makes from each resource."""


@dataclass(frozen=True)
class Jobs:
    """Values of the directives `log`, `benchmark`, `threads` and `resources` of the rules, and related ones."""

    plan: Plan

    def log(self, name: str, template: str) -> str:
        """Return the path of the log of the job `name` that writes the folder `template`."""
        return self.plan.layout.mirror_path(self.plan.fill_path(template), LOGS_FOLDER, f"{name}.log")

    def benchmark(self, name: str, template: str) -> str:
        """Return the path where Snakemake records time and memory of the job `name` that writes `template`."""
        return self.plan.layout.mirror_path(self.plan.fill_path(template), BENCHMARKS_FOLDER, f"{name}.tsv")

    def threads(self, name: JobName) -> int:
        """Return the threads of a job; Snakemake sets OMP_NUM_THREADS to them, or to the available cores if fewer."""
        return count_job_threads(self._get_resources(name), self.plan.config.cluster)

    def devices(self, name: JobName) -> Callable[[Wildcards, int], int]:
        """Return a params function for a job's number of devices (not compared: `params.UncomparedParam`)."""
        return lambda wildcards, threads: max(1, self._get_resources(name).gpu)

    def resources(
        self, name: JobName, gpu: int | None = None, runtime: int | None = None
    ) -> dict[str, Callable[[Wildcards, int], int | str]]:
        """Return the resources of a job except threads, as functions of the attempt.

        Retries of a job that cannot resume get more time and memory.

        Args:
            name: key in `resources:`.
            gpu: number of GPUs instead of the one in `resources:`.
            runtime: upper limit of the runtime in `resources:`, in minutes.
        """
        resources = self._get_resources(name)
        resources = resources if gpu is None else resources.model_copy(update={"gpu": gpu})
        resources = (
            resources if runtime is None else resources.model_copy(update={"runtime": min(runtime, resources.runtime)})
        )
        cluster = self.plan.config.cluster

        def make_resource(kind: str) -> Callable[[Wildcards, int], int | str]:
            return lambda wildcards, attempt: compute_job_resources(name, resources, cluster, attempt)[kind]

        return {kind: make_resource(kind) for kind in compute_job_resources(name, resources, cluster)}

    def sbatch_command(self, resources: object) -> str:
        """Return the sbatch command that submits a job, with names of Snakemake's resources in braces.

        Args:
            resources: names of the rule's resources.
        """
        cluster = self.plan.config.cluster
        omitted = set() if cluster is not None and cluster.ask_memory else {"mem_mb"}
        kinds = [kind for kind in SBATCH if kind in resources and kind not in omitted]  # type: ignore[operator]
        return "sbatch " + " ".join(SBATCH[kind] for kind in kinds)

    def _get_resources(self, name: JobName) -> Resources:
        return self.plan.config.resources.get(name, Resources())


def has_gpu() -> bool:
    """Return whether this machine has a GPU (of NVIDIA, AMD or Apple) that jobs may use."""
    if os.environ.get(CHOICE) == "cpu" or os.environ.get(VISIBLE, "0").strip() in HIDING:
        return False
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return True
    for command in (["nvidia-smi", "--list-gpus"], ["rocm-smi", "--showid"]):
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if answer.returncode == 0 and "GPU" in answer.stdout:
            return True
    return False
