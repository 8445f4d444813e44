"""The header that rules share: log, times, threads and resources of their jobs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from nfpi.config import JobName, Resources, resources_of_job, threads_of_job
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
"""Resources, and the options of sbatch that Snakemake's SLURM executor makes of them."""


@dataclass(frozen=True)
class Jobs:
    """What a job of a stage is given, and where it leaves what it prints."""

    plan: Plan

    def log(self, name: str, template: str) -> str:
        """Where a job that fills this folder leaves what it prints."""
        return self.plan.layout.beside(self.plan.path(template), "logs", f"{name}.log")

    def benchmark(self, name: str, template: str) -> str:
        """Where the time and memory of a job that fills this folder are noted."""
        return self.plan.layout.beside(self.plan.path(template), "benchmarks", f"{name}.tsv")

    def threads(self, name: JobName) -> int:
        """Threads of one job; Snakemake hands them on as OMP_NUM_THREADS, cut to the cores there are."""
        return threads_of_job(self._line(name), self.plan.config.cluster)

    def devices(self, name: JobName) -> Callable[[Wildcards, int], int]:
        """Params function: GPUs that one job may train on (not compared: see `params.Unseen`)."""
        return lambda wildcards, threads: max(1, self._line(name).gpu)

    def resources(self, name: JobName, gpu: int | None = None) -> dict[str, Callable[[Wildcards, int], int | str]]:
        """The other resources of one job, some more when it is tried again.

        Args:
            name: which line of `resources:`.
            gpu: in the place of what that line says.
        """
        line = self._line(name)
        line = line if gpu is None else line.model_copy(update={"gpu": gpu})
        cluster = self.plan.config.cluster

        def resource(kind: str) -> Callable[[Wildcards, int], int | str]:
            return lambda wildcards, attempt: resources_of_job(name, line, cluster, attempt)[kind]

        return {kind: resource(kind) for kind in resources_of_job(name, line, cluster)}

    def sbatch(self, resources: object) -> str:
        """What a submitted job asks for, as options of sbatch with the names of Snakemake's resources in braces.

        Args:
            resources: the names of the resources that the rule has.
        """
        cluster = self.plan.config.cluster
        silent = set() if cluster is not None and cluster.ask_memory else {"mem_mb"}
        kinds = [kind for kind in SBATCH if kind in resources and kind not in silent]  # type: ignore[operator]
        return "sbatch " + " ".join(SBATCH[kind] for kind in kinds)

    def _line(self, name: JobName) -> Resources:
        return self.plan.config.resources.get(name, Resources())


def gpu_in_this_machine() -> bool:
    """Whether jobs that run here would find a GPU (NVIDIA's, AMD's or Apple's)."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
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
