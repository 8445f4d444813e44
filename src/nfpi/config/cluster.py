"""What the jobs of a stage ask for: on this machine, and on a cluster that runs SLURM."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from nfpi.config.base import ExpandedText, Name, NonNegativeInt, PositiveInt, Settings

JobName = Literal[
    "prepare_data",
    "encode_data",
    "start_flow",
    "fit_prior",
    "train_flow",
    "evaluate",
    "generate",
    "augment",
    "train_classifier",
    "test_classifier",
    "collect",
    "table",
    "figure",
    "benchmark",
]
"""What `resources:` has a line for."""

RESUMED: frozenset[JobName] = frozenset(
    {"encode_data", "start_flow", "train_flow", "generate", "augment", "train_classifier"}
)
"""Stages that keep what they have done when they are stopped, and resume; the others begin anew."""


_WORD = r"[\w.,:@%+/=-]+"
_EXPRESSION = r"[\w.,:@%+/=&|*()\[\]-]+"
"""Snakemake's executor quotes what it is made of."""
_QUOTED = re.compile(r"""'[^'\n]*'|"[^"\n$`\\!]*\"""")
_EXPANDED = re.compile(r"""[$`\\;&|<>(){}*?!~#'"]|[^\S ]""")
"""Characters that mean something to a shell, and line breaks."""


def _name(text: str) -> str:
    return _matched(text, _WORD, "a name of letters, digits and _ . , : @ % + / = -")


def _expression(text: str) -> str:
    return _matched(text, _EXPRESSION, "features of nodes joined by & | , or in brackets")


def _matched(text: str, pattern: str, expected: str) -> str:
    if not re.fullmatch(pattern, text, re.ASCII):
        raise ValueError(f"expected {expected}, received {text!r}")
    return text


def _plain_options(text: str) -> str:
    """Options go through the shell of the machine that submits, which must find nothing to expand."""
    found = _EXPANDED.search(_QUOTED.sub("", text))
    if found:
        raise ValueError(
            f"expected options of sbatch that no shell expands, received {found[0]!r} in {text!r}: quote the value"
        )
    return text


class Resources(Settings):
    """What one job of a stage may use."""

    gpu: NonNegativeInt = 0
    threads: PositiveInt = 1
    mem_mb: PositiveInt = 4000
    runtime: PositiveInt = 60
    """minutes"""


class Cluster(Settings):
    """What a cluster wants to know of its jobs beyond their resources; profiles/ has some."""

    account: Annotated[ExpandedText, AfterValidator(_name)] | None = None
    """who pays for jobs with GPUs; environment variables may stand in it"""
    cpu_account: Annotated[ExpandedText, AfterValidator(_name)] | None = None
    """who pays for the other jobs; None: the same"""
    partition: Annotated[str, AfterValidator(_name)] | None = None
    """of jobs with GPUs; None: the cluster's default"""
    cpu_partition: Annotated[str, AfterValidator(_name)] | None = None
    """of the other jobs; None: the cluster's default"""
    constraint: Annotated[str, AfterValidator(_expression)] | None = None
    """which nodes suit jobs with GPUs"""
    qos: dict[Name, PositiveInt] = {}
    """QoS of jobs with GPUs and their time limits in minutes; a job takes the shortest that it fits into"""
    max_runtime: PositiveInt | None = None
    """longest time a job may ask for, in minutes; what takes longer is resumed in the next job"""
    cores_per_gpu: PositiveInt | None = None
    """cores that come with each GPU; None: a job asks for the threads of its stage"""
    ask_memory: bool = True
    """no: memory comes along with the cores"""
    warn_seconds: Annotated[int, Field(ge=0, lt=65536)] = 120
    """how long before its time limit a job is told to keep what it has done (SIGTERM); 0: it is not told"""
    options: Annotated[str, AfterValidator(_plain_options)] = ""
    """more options of sbatch; values that a shell would change stand in quotes"""

    @property
    def longest(self) -> int | None:
        """Minutes that a job may ask for at most, if there is a limit."""
        limits = [self.max_runtime] if self.max_runtime else []
        return min([*limits, *([max(self.qos.values())] if self.qos else [])], default=None)

    def qos_for(self, minutes: int) -> str | None:
        """The shortest QoS that a job of this length fits into."""
        return min((name for name in self.qos if self.qos[name] >= minutes), key=self.qos.__getitem__, default=None)


def threads_of_job(line: Resources, cluster: Cluster | None) -> int:
    """Threads of one job."""
    if cluster and cluster.cores_per_gpu and line.gpu:
        return line.gpu * cluster.cores_per_gpu
    return line.threads


def resources_of_job(
    stage: JobName, line: Resources, cluster: Cluster | None, attempt: int = 1
) -> dict[str, int | str]:
    """All other resources of one job, as Snakemake and its SLURM executor name them.

    A stage that begins anew when it is tried again asks for more time and memory then, up to three times as much.

    Args:
        stage: what the job runs.
        line: what the table of resources says of it.
        cluster: where it runs; None: on this machine.
        attempt: 1, 2, ...
    """
    times = 1 if stage in RESUMED else min(attempt, 3)
    asked: dict[str, int | str | None] = {"mem_mb": times * line.mem_mb, "runtime": times * line.runtime}
    if line.gpu:
        # Jobs that share this machine count `local_gpu`: a limit on what a cluster is asked for would cut it down.
        asked |= {"local_gpu": 1, "gpu": line.gpu}
    if cluster:
        asked |= _requests_of_slurm(stage, line, cluster, times)
    return {name: value for name, value in asked.items() if value is not None}


def _requests_of_slurm(stage: JobName, line: Resources, cluster: Cluster, times: int) -> dict[str, int | str | None]:
    runtime = min(times * line.runtime, cluster.longest or times * line.runtime)
    warning = f"--signal=TERM@{cluster.warn_seconds}" if stage in RESUMED and cluster.warn_seconds else ""
    requests: dict[str, int | str | None] = {
        "cpus_per_task": threads_of_job(line, cluster),
        "runtime": runtime,
        "slurm_extra": f"{cluster.options} {warning}".strip() or None,
    }
    if not cluster.ask_memory:
        requests["mem_mb"] = 0  # nor is all memory of the node asked for: the option is left out
    if not line.gpu:
        return requests | {
            "slurm_account": cluster.cpu_account or cluster.account,
            "slurm_partition": cluster.cpu_partition,
        }
    return requests | {
        "gpu": None,  # `gres` asks for GPUs of one node
        "gres": f"gpu:{line.gpu}",
        "slurm_account": cluster.account,
        "slurm_partition": cluster.partition,
        "constraint": cluster.constraint,
        "qos": cluster.qos_for(runtime),
    }
