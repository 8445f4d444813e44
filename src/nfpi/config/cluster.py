"""Resources of the jobs of each stage, on this machine and on a SLURM cluster."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints

from nfpi.config.base import ExpandedText, Name, NonNegativeInt, PositiveInt, Settings

JobName = Literal[
    "prepare_data",
    "encode_data",
    "extract_features",
    "import_model",
    "start_flow",
    "fit_prior",
    "train_flow",
    "refit_prior",
    "augment",
    "generate",
    "train_classifier",
    "test_classifier",
    "evaluate",
    "table",
    "figure",
    "benchmark",
]
"""Keys of `resources:`: first the jobs of the longest chain, in their order."""
JOB_NAMES: tuple[JobName, ...] = get_args(JobName)

RESUMED: frozenset[JobName] = frozenset(
    {"encode_data", "start_flow", "train_flow", "generate", "augment", "train_classifier"}
)
"""Stages that save their progress and resume when interrupted; the others start from the beginning."""


class Resources(Settings):
    """Resources of one job of a stage."""

    gpu: NonNegativeInt = 0
    threads: PositiveInt = 1
    mem_mb: PositiveInt = 4000
    runtime: PositiveInt = 60
    """minutes"""


class Cluster(Settings):
    """Settings of a SLURM cluster; see profiles/ for examples."""

    account: ExpandedText | None = None
    """account charged for jobs with GPUs; environment variables are expanded"""
    cpu_account: ExpandedText | None = None
    """account charged for other jobs; None: `account`"""
    partition: str | None = None
    """partition of jobs with GPUs; None: the cluster's default"""
    cpu_partition: str | None = None
    """partition of other jobs; None: the cluster's default"""
    constraint: str | None = None
    """node features required by jobs with GPUs"""
    qos: dict[Name, PositiveInt] = {}
    """time limits (minutes) of the QoS of jobs with GPUs; a job uses the shortest QoS that it fits into"""
    max_runtime: PositiveInt | None = None
    """maximum runtime of a job, in minutes; trainings, generation, augmentation and encoding are resumed in the
    next job"""
    cores_per_gpu: PositiveInt | None = None
    """cores allocated with each GPU; None: a job requests the threads of its stage"""
    ask_memory: bool = True
    """whether jobs request memory; false: it is allocated with the cores"""
    warn_seconds: Annotated[int, Field(ge=0, lt=65536)] = 120
    """seconds before its time limit at which a job receives SIGTERM, to save its progress; 0: no signal"""
    options: Annotated[str, StringConstraints(strip_whitespace=True)] = ""
    """further options of sbatch, in one line; quote values that contain special characters of a shell"""

    def choose_qos(self, minutes: int) -> str | None:
        """Return the shortest QoS that a job of this length fits into."""
        return min((name for name in self.qos if self.qos[name] >= minutes), key=self.qos.__getitem__, default=None)


def count_job_threads(resources: Resources, cluster: Cluster | None) -> int:
    """Return the number of threads of one job."""
    if cluster and cluster.cores_per_gpu and resources.gpu:
        return resources.gpu * cluster.cores_per_gpu
    return resources.threads


def compute_job_resources(
    stage: JobName, resources: Resources, cluster: Cluster | None, attempt: int = 1
) -> dict[str, int | str]:
    """Return the resources of one job, without `threads`, under the names of Snakemake and its SLURM executor.

    A stage that cannot resume requests two times the memory and time on the first retry, and three times on later ones.

    Args:
        stage: stage that the job runs.
        resources: the resources of this stage.
        cluster: the cluster that the job runs on; None: this machine.
        attempt: 1 for the first submission, 2 for the first retry, ...
    """
    times = 1 if stage in RESUMED else min(attempt, 3)
    asked: dict[str, int | str | None] = {"mem_mb": times * resources.mem_mb, "runtime": times * resources.runtime}
    if resources.gpu:
        # `local_gpu` limits the jobs at a time on this machine; a limit on `gpu` would also apply to a cluster.
        asked |= {"local_gpu": 1, "gpu": resources.gpu}
    if cluster:
        asked |= _compute_slurm_resources(stage, resources, cluster, times)
    return {name: value for name, value in asked.items() if value is not None}


def _compute_slurm_resources(
    stage: JobName, resources: Resources, cluster: Cluster, times: int
) -> dict[str, int | str | None]:
    limits = (cluster.max_runtime, max(cluster.qos.values(), default=None) if resources.gpu else None)
    runtime = min([times * resources.runtime, *filter(None, limits)])
    warning = f"--signal=TERM@{cluster.warn_seconds}" if stage in RESUMED and cluster.warn_seconds else ""
    requests: dict[str, int | str | None] = {
        "cpus_per_task": count_job_threads(resources, cluster),
        "runtime": runtime,
        "slurm_extra": f"{cluster.options} {warning}".strip() or None,
    }
    if not cluster.ask_memory:
        requests["mem_mb"] = 0  # the executor then omits --mem
    if not resources.gpu:
        return requests | {
            "slurm_account": cluster.cpu_account or cluster.account,
            "slurm_partition": cluster.cpu_partition,
        }
    return requests | {
        "gpu": None,  # `gres` requests all GPUs on one node
        "gres": f"gpu:{resources.gpu}",
        "slurm_account": cluster.account,
        "slurm_partition": cluster.partition,
        "constraint": cluster.constraint,
        "qos": cluster.choose_qos(runtime),
    }
