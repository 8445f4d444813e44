"""Paths, settings and resources that the stages share."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from snakemake.exceptions import WorkflowError
from snakemake.utils import available_cpu_count

from nfpi.config import BASELINE, Experiment, format_weight
from nfpi.config import Resources as StageResources

Wildcards = Any
"""Snakemake's; where it can be imported from differs between its versions."""

ROOT = f"{RESULTS.as_posix()}/{PRESET}"
SPLITS = f"{ROOT}/{{dataset}}/splits"
START = f"{ROOT}/{{dataset}}/start/{{start}}/seed={{seed}}"
LEAF = f"{ROOT}/{{dataset}}/{{prior}}/lambda={{lam}}/seed={{seed}}"
GENERATED = f"{LEAF}/generated/temperature={{temperature}}"
CLASSIFIER = f"{LEAF}/resnet18/temperature={{temperature}}"
SPLIT_NAMES = ("train", "validation", "test")

NO_RESULT = {"workers", "checkpoint_minutes", "evaluate_every"}
"""Settings of a training that say how it is run and watched, not what comes out."""
NOT_OF_START = {"epochs"}
"""Settings of the training on which nothing depends that start_flow leaves."""

FIGURES_OF = {"table2": ["accuracy_against_weight"]}
"""The figures that are drawn from a table and made along with it."""


wildcard_constraints:
    dataset="|".join(map(re.escape, SETTINGS.datasets)) or "[^/]+",
    prior="|".join(map(re.escape, (*SETTINGS.priors, *BASELINE.values()))),
    start="|".join(BASELINE),
    lam=r"[0-9][0-9.e+-]*",
    seed=r"0|[1-9][0-9]*",
    temperature=r"[0-9][0-9.e+-]*",
    table="|".join(SETTINGS.tables) or "[^/]+",


# ---- paths --------------------------------------------------------------------------------------------------


def images_in(folder: str, prefix: str = "") -> dict[str, str]:
    """The files of a set of labelled images, by name: `{prefix}images`, `{prefix}labels`, `{prefix}meta`."""
    files = {"images": "images.npy", "labels": "labels.npy", "meta": "meta.json"}
    return {f"{prefix}{name}": f"{folder}/{file}" for name, file in files.items()}


def splits(*names: str) -> dict[str, str]:
    """The files of some splits of a data set, as `train_images`, `train_labels`, ..."""
    return {key: path for name in names for key, path in images_in(f"{SPLITS}/{name}", f"{name}_").items()}


def log_of(stage: str, folder: str) -> str:
    """Where a stage that fills `folder` leaves what it prints."""
    return f"{ROOT}/logs{folder.removeprefix(ROOT)}/{stage}.log"


def benchmark_of(stage: str, folder: str) -> str:
    """Where the time and memory of a stage that fills `folder` are noted."""
    return f"{ROOT}/benchmarks{folder.removeprefix(ROOT)}/{stage}.tsv"


def start_of(prior: str) -> str:
    """The initial Gaussians that a prior is fitted from."""
    starts = {baseline: start for start, baseline in BASELINE.items()}
    return starts[prior] if prior in starts else SETTINGS.priors[prior].start


def start_file(name: str) -> Callable[[Wildcards], str]:
    """Input function: a file of the start that a leaf goes on from."""
    return lambda wildcards: f"{START}/{name}".format(start=start_of(wildcards.prior), **wildcards)


def prior_of_training(wildcards: Wildcards) -> str:
    """The Gaussians a leaf is trained under: the fitted ones, or for λ = 0 the initial ones."""
    if wildcards.prior in BASELINE.values():
        return start_file("prior.safetensors")(wildcards)
    return f"{LEAF}/fit/prior.safetensors".format(**wildcards)


def candidates(wildcards: Wildcards) -> list[str]:
    """The folders of the classifiers that a leaf is to choose from, one for each temperature."""
    temperatures = SETTINGS.for_dataset(wildcards.dataset).generation.temperatures
    texts = dict.fromkeys(map(format_weight, temperatures))
    return [CLASSIFIER.format(temperature=text, **wildcards) for text in texts]


def candidate_files(name: str) -> Callable[[Wildcards], list[str]]:
    """Input function: one file of every candidate."""
    return lambda wildcards: [f"{folder}/{name}" for folder in candidates(wildcards)]


def leaves_of(experiment: Experiment) -> Iterator[str]:
    """The folders of an experiment's runs."""
    for weight in experiment.lambdas:
        prior = BASELINE[SETTINGS.priors[experiment.prior].start] if weight == 0 else experiment.prior
        for seed in SETTINGS.seeds:
            yield LEAF.format(dataset=experiment.dataset, prior=prior, lam=format_weight(weight), seed=seed)


def metrics_of(wildcards: Wildcards) -> list[str]:
    """Every metrics.json that a table is made from, each once."""
    files = []
    for experiment in SETTINGS.tables[wildcards.table].experiments:
        for leaf in leaves_of(experiment):
            files.append(f"{leaf}/metrics.json")
            if experiment.classifier:
                files.append(f"{leaf}/{experiment.classifier}/metrics.json")
    return list(dict.fromkeys(files))


def table_files(name: str) -> list[str]:
    """A table in its three forms."""
    return [f"{ROOT}/tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")]


def figure_files(name: str) -> list[str]:
    """A figure in its two forms."""
    return [f"{ROOT}/figures/{name}.{suffix}" for suffix in ("png", "pdf")]


def target(table: str) -> list[str]:
    """All that is made for a table: its files, and the figures drawn from it."""
    figures = [file for name in FIGURES_OF.get(table, []) for file in figure_files(name)]
    return [*table_files(table), *figures]


def target_of(table: str, preset: str = PRESET) -> Callable[[Wildcards], list[str]]:
    """Input function of a table's target, which not every preset has."""

    def files(wildcards: Wildcards) -> list[str]:
        if PRESET != preset:
            raise WorkflowError(f"config: this target is for preset {preset}, not for {PRESET}")
        if table not in SETTINGS.tables:
            raise WorkflowError(f"config: preset {PRESET} has no tables.{table}")
        return target(table)

    return files


# ---- settings: one JSON text a group, so that a stage is made again only when what it reads has changed -----


def as_json(settings: BaseModel, *, without: Iterable[str] = ()) -> str:
    """Settings as one line of JSON."""
    return json.dumps(settings.model_dump(mode="json", exclude=set(without)), ensure_ascii=False)


def dataset_settings(wildcards: Wildcards, threads: int) -> str:
    """How a data set is made; never a reason to make it again (see `settings_to_run`)."""
    return as_json(SETTINGS.datasets[wildcards.dataset], without=["overrides"])


def dataset_content(wildcards: Wildcards) -> str:
    """The same without where the files lie: they may move, and `$SCRATCH` differs from user to user."""
    return as_json(SETTINGS.datasets[wildcards.dataset], without=["overrides", "folder"])


def settings(group: str, *, without: Iterable[str] = ()) -> Callable[[Wildcards], str]:
    """Params function: a group of settings as they are for the data set at hand."""
    return lambda wildcards: as_json(getattr(SETTINGS.for_dataset(wildcards.dataset), group), without=without)


def settings_to_run(group: str, *, without: Iterable[str] = ()) -> Callable[[Wildcards, int], str]:
    """Params function: the same, but never a reason to run again.

    Snakemake compares no params that depend on threads. A rule that uses this has `settings` without what changes
    no result beside it, to be compared.
    """
    return lambda wildcards, threads: settings(group, without=without)(wildcards)


def generation_setting(name: str) -> Callable[[Wildcards], int]:
    """Params function: one setting of the generation, as it is for the data set at hand."""
    return lambda wildcards: getattr(SETTINGS.for_dataset(wildcards.dataset).generation, name)


def prior_settings(wildcards: Wildcards) -> str:
    """How a prior is fitted."""
    return as_json(SETTINGS.priors[wildcards.prior])


def table_settings(wildcards: Wildcards) -> str:
    """What stands in a table."""
    return as_json(SETTINGS.tables[wildcards.table])


def table_priors(wildcards: Wildcards) -> str:
    """The priors that a table names."""
    names = dict.fromkeys(experiment.prior for experiment in SETTINGS.tables[wildcards.table].experiments)
    return json.dumps({name: SETTINGS.priors[name].model_dump(mode="json") for name in names})


# ---- resources ----------------------------------------------------------------------------------------------


def stage_resources(stage: str) -> StageResources:
    """The line of a stage in config.yaml's table of resources."""
    return SETTINGS.resources.get(stage, StageResources())


def threads_of(stage: str) -> int:
    """Threads of one job; Snakemake hands them on as OMP_NUM_THREADS, cut to the cores there are."""
    return stage_resources(stage).threads


def resources_of(stage: str) -> dict[str, int]:
    """The other resources of one job.

    `gpu` is what a cluster is asked for, `local_gpu` what a limit on this machine counts: Snakemake cuts what a
    job asks for to such a limit, also for jobs that a cluster runs.
    """
    line = stage_resources(stage)
    gpu = {"gpu": line.gpu, "local_gpu": 1} if line.gpu else {}
    return {**gpu, "mem_mb": line.mem_mb, "runtime": line.runtime}


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
