"""What one job of a stage asks for, and how jobs share this machine."""

import os
import platform
import subprocess
from collections.abc import Callable

from snakemake.utils import available_cpu_count

from nfpi.config import Resources as StageResources
from nfpi.config import resources_of_job, threads_of_job


def stage_resources(stage: str) -> StageResources:
    """The line of a stage in config.yaml's table of resources."""
    return SETTINGS.resources.get(stage, StageResources())


def threads_of(stage: str) -> int:
    """Threads of one job; Snakemake hands them on as OMP_NUM_THREADS, cut to the cores there are."""
    return threads_of_job(stage_resources(stage), SETTINGS.cluster)


def devices_of(stage: str) -> Callable[[Wildcards, int], int]:
    """Params function: GPUs that one job may train on; never a reason to run again (see `settings_to_run`)."""
    return lambda wildcards, threads: max(1, stage_resources(stage).gpu)


def resources_of(stage: str, gpu: int | None = None) -> dict[str, Callable[[Wildcards, int], int | str]]:
    """The other resources of one job, some more when it is tried again; `gpu` in place of what config.yaml says."""
    line = stage_resources(stage)
    line = line if gpu is None else line.model_copy(update={"gpu": gpu})

    def resource(name: str) -> Callable[[Wildcards, int], int | str]:
        return lambda wildcards, attempt: resources_of_job(stage, line, SETTINGS.cluster, attempt)[name]

    return {name: resource(name) for name in resources_of_job(stage, line, SETTINGS.cluster)}


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


# Jobs that need a GPU take turns on this machine; those that a cluster runs do not count.
resource_scopes:
    local_gpu="local",


if "local_gpu" not in workflow.global_resources and gpu_in_this_machine():
    workflow.global_resources["local_gpu"] = 1

# Without --cores and --jobs, all cores of this machine. No profile can say that: it would say so with --executor
# too, and cut the threads of a cluster's jobs to the cores of the machine they are submitted from.
if workflow.resource_settings.cores is None and workflow.resource_settings.nodes is None:
    workflow.resource_settings.cores = available_cpu_count()
    workflow.global_resources["_cores"] = workflow.resource_settings.cores
