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

from nfpi.config import BASELINE, NO_FLOW, NO_RESULT, Experiment, format_weight, leaf_prior
from nfpi.config import resources_of_job, threads_of_job
from nfpi.config import Resources as StageResources

Wildcards = Any
"""Snakemake's; where it can be imported from differs between its versions."""

ROOT = f"{RESULTS.as_posix()}/{PRESET}"
SPLITS = f"{ROOT}/{{dataset}}/splits"
START = f"{ROOT}/{{dataset}}/start/{{start}}/seed={{seed}}"
LEAF = f"{ROOT}/{{dataset}}/{{prior}}/lambda={{lam}}/seed={{seed}}"
GENERATED = f"{LEAF}/generated/temperature={{temperature}}"
CLASSIFIER = f"{LEAF}/{{classifier}}/temperature={{temperature}}"
REAL_CLASSIFIER = f"{ROOT}/{{dataset}}/{{source}}/seed={{seed}}/{{classifier}}/augmentation={{augmentation}}"
AUGMENTED = f"{LEAF}/augmented"
FIGURES = f"{ROOT}/figures"
SPLIT_NAMES = ("train", "validation", "test")

NOT_OF_START = {"epochs"}
"""Settings of the training on which nothing depends that start_flow leaves."""

FIGURES_OF = {"table2": ["accuracy_against_weight"]}
"""The figures that are drawn from a table and made along with it."""


wildcard_constraints:
    dataset="|".join(map(re.escape, SETTINGS.datasets)) or "[^/]+",
    prior="|".join(map(re.escape, (*SETTINGS.priors, *BASELINE.values()))),
    start="|".join(BASELINE),
    source="|".join(
        [
            NO_FLOW,
            rf"(?:{'|'.join(map(re.escape, (*SETTINGS.priors, *BASELINE.values())))})/lambda=[0-9.e+-]+",
        ]
    ),
    classifier="|".join(map(re.escape, SETTINGS.classifiers)) or "[^/]+",
    augmentation=r"none|standard|nfa|standard\+nfa",
    lam=r"[0-9][0-9.e+-]*",
    seed=r"0|[1-9][0-9]*",
    temperature=r"[0-9][0-9.e+-]*",
    table="|".join(map(re.escape, SETTINGS.tables)) or "[^/]+",


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


def is_fitted(prior: str) -> bool:
    """Whether the Gaussians of a leaf come from a fixed-point iteration of its own."""
    return prior in SETTINGS.priors and SETTINGS.priors[prior].method == "fixed_point"


def prior_of_training(wildcards: Wildcards) -> str:
    """The Gaussians that the training of a leaf begins with: fitted ones, else the initial ones."""
    if is_fitted(wildcards.prior):
        return f"{LEAF}/fit/prior.safetensors".format(**wildcards)
    return start_file("prior.safetensors")(wildcards)


def learning(wildcards: Wildcards) -> list[str]:
    """Params function: options of a training that learns its Gaussians along with the flow."""
    if is_fitted(wildcards.prior) or wildcards.prior in BASELINE.values():
        return []
    return ["--learn", prior_settings(wildcards), "--weight", wildcards.lam]


def candidates(wildcards: Wildcards) -> list[str]:
    """The folders of the classifiers that a leaf is to choose from, one for each temperature."""
    temperatures = SETTINGS.for_dataset(wildcards.dataset).generation.temperatures
    texts = dict.fromkeys(map(format_weight, temperatures))
    return [CLASSIFIER.format(temperature=text, **wildcards) for text in texts]


def candidate_files(name: str) -> Callable[[Wildcards], list[str]]:
    """Input function: one file of every candidate."""
    return lambda wildcards: [f"{folder}/{name}" for folder in candidates(wildcards)]


def augmented_images(wildcards: Wildcards) -> list[str]:
    """Input function: the latent-augmented images that a classifier of real images sees, if it does."""
    folder = f"{ROOT}/{wildcards.dataset}/{wildcards.source}/seed={wildcards.seed}/augmented"
    return list(images_in(folder).values()) if "nfa" in wildcards.augmentation else []


def weights_to_start_from(wildcards: Wildcards) -> list[str]:
    """Input function: the weights that a classifier goes on from, if it does."""
    other = SETTINGS.for_dataset(wildcards.dataset).classifiers[wildcards.classifier].start_from
    where = {**wildcards, "source": NO_FLOW, "classifier": other, "augmentation": "none"}
    return [f"{REAL_CLASSIFIER}/trained/model.safetensors".format(**where)] if other else []


def published_weights(wildcards: Wildcards) -> list[str]:
    """Input function: the file of weights that a classifier goes on from, the user's or the published one."""
    classifier = SETTINGS.for_dataset(wildcards.dataset).classifiers[wildcards.classifier]
    if classifier.weights is not None:
        return [classifier.weights.as_posix()]
    return [f"{RESULTS.as_posix()}/downloads/{classifier.model}.safetensors"] if classifier.pretrained else []


def classifier_inputs(wildcards: Wildcards, input: Any) -> list[str]:
    """Params function: options of a classifier of real images that name its inputs."""
    standard = "standard" if "standard" in wildcards.augmentation else "none"
    options = ["--augmentation", standard]
    if input.augmented:
        options += ["--augmented", os.path.dirname(input.augmented[0])]
    for option, paths in (("--start-from", input.start_from), ("--classifier.weights", input.published)):
        options += [text for path in paths for text in (option, path)]
    return options


def real_labels(wildcards: Wildcards) -> list[str]:
    """Params function: the option that asks for a score on ImageNet-ReaL's labels too, where the data set has them."""
    return ["--real-labels"] if SETTINGS.datasets[wildcards.dataset].real_labels else []


def leaves_of(experiment: Experiment) -> Iterator[str]:
    """The folders of an experiment's runs; of those without a flow, where its classifiers lie."""
    for seed in SETTINGS.seeds:
        if experiment.prior is None:
            yield f"{ROOT}/{experiment.dataset}/{NO_FLOW}/seed={seed}"
        for weight in experiment.lambdas:
            prior = leaf_prior(experiment.prior, SETTINGS.priors[experiment.prior], weight)
            yield LEAF.format(dataset=experiment.dataset, prior=prior, lam=format_weight(weight), seed=seed)


def metrics_of(wildcards: Wildcards) -> list[str]:
    """Input function: the metrics of all runs that a table is made from."""
    files = []
    for experiment in SETTINGS.tables[wildcards.table].experiments:
        classifier = experiment.classifier
        for leaf in leaves_of(experiment):
            if (
                classifier
                and SETTINGS.for_dataset(experiment.dataset).classifiers[classifier].train_on == "real"
            ):
                files.append(f"{leaf}/{classifier}/augmentation={experiment.augmentation}/metrics.json")
                continue
            files.append(f"{leaf}/metrics.json")
            if classifier:
                files.append(f"{leaf}/{classifier}/metrics.json")
    return list(dict.fromkeys(files))


def table_files(name: str) -> list[str]:
    """A table in its three forms."""
    return [f"{ROOT}/tables/{name}.{suffix}" for suffix in ("csv", "md", "tex")]


def figure_files(name: str) -> list[str]:
    """A figure in its two forms."""
    return [f"{FIGURES}/{name}.{suffix}" for suffix in ("png", "pdf")]


def figure(name: str, title: str, caption: str = "") -> dict[str, str]:
    """The files of a figure, as outputs: png (in the report, under a caption of its name) and pdf."""
    path = f"../report/{caption or name}.rst"
    picture = report(f"{FIGURES}/{name}.png", caption=path, category="Figures", labels={"figure": title})
    return {"png": picture, "pdf": f"{FIGURES}/{name}.pdf"}


def drawn(name: str) -> Any:
    """What a figure of the config shows."""
    settings_of_figure = getattr(SETTINGS.figures, name)
    if settings_of_figure is None:
        raise WorkflowError(f"config: preset {PRESET} has no figures.{name}")
    return settings_of_figure


def figure_settings(name: str) -> Callable[[Wildcards], str]:
    """Params function: what a figure of the config shows."""
    return lambda wildcards: as_json(drawn(name))


def data_of_figure(name: str, split: str) -> Callable[[Wildcards], list[str]]:
    """Input function: the images that a figure shows."""
    return lambda wildcards: [path.format(dataset=drawn(name).dataset) for path in splits(split).values()]


def splits_of_figure(name: str) -> Callable[[Wildcards], str]:
    """Params function: the folder of the splits of a figure's data set."""
    return lambda wildcards: SPLITS.format(dataset=drawn(name).dataset)


def leaf_of_figure(name: str, file: str) -> Callable[[Wildcards], str]:
    """Input function: a file of the run that a figure shows; of the first seed."""

    def path(wildcards: Wildcards) -> str:
        shown = drawn(name)
        prior = leaf_prior(shown.prior, SETTINGS.priors[shown.prior], shown.weight)
        where = {"dataset": shown.dataset, "prior": prior, "lam": format_weight(shown.weight)}
        return f"{LEAF}/{file}".format(seed=SETTINGS.seeds[0], **where)

    return path


def start_of_figure(name: str, file: str) -> Callable[[Wildcards], str]:
    """Input function: a file of the start at the class means and variances that a figure shows."""
    return lambda wildcards: f"{START}/{file}".format(
        dataset=drawn(name).dataset, start="data", seed=SETTINGS.seeds[0]
    )


def fits_of_residuals(wildcards: Wildcards) -> list[str]:
    """Input function: the iterations of each λ of the figure of residuals."""
    shown = drawn("residuals")
    where = {"dataset": shown.dataset, "prior": shown.prior, "seed": SETTINGS.seeds[0]}
    return [
        f"{LEAF}/fit/fixed_point.csv".format(lam=format_weight(weight), **where) for weight in shown.lambdas
    ]


def nfa_of_figure(name: str) -> Callable[[Wildcards], str]:
    """Params function: settings of the latent augmentation as they are for a figure's data set."""
    return lambda wildcards: as_json(SETTINGS.for_dataset(drawn(name).dataset).nfa)


def prior_of_figure(name: str) -> Callable[[Wildcards], str]:
    """Params function: settings of a figure's prior."""
    return lambda wildcards: as_json(SETTINGS.priors[drawn(name).prior])


DRAWN = {name: [name] for name in ("figure1", "figure2", "samples", "residuals", "convergence_map")} | {
    "figure1": ["figure1", "figure1_full"]
}
"""The drawings of each figure of the config."""


def target(name: str) -> list[str]:
    """All that is made for a table (its files, and the figures drawn from it) or a figure."""
    if name in SETTINGS.tables:
        return [
            *table_files(name),
            *(file for figure in FIGURES_OF.get(name, []) for file in figure_files(figure)),
        ]
    return [file for figure in DRAWN[name] for file in figure_files(figure)]


def targets() -> list[str]:
    """Names of all tables and figures of the preset."""
    return [*SETTINGS.tables, *(name for name, figure in SETTINGS.figures if figure is not None)]


def target_of(*names: str, preset: str = PRESET) -> Callable[[Wildcards], list[str]]:
    """Input function of the target of tables and figures, which not every preset has."""

    def files(wildcards: Wildcards) -> list[str]:
        if PRESET != preset:
            raise WorkflowError(f"config: this target is for preset {preset}, not for {PRESET}")
        for name in names:
            if name not in targets():
                kind = "tables" if name.startswith("table") else "figures"
                raise WorkflowError(f"config: preset {PRESET} has no {kind}.{name}")
        return [file for name in names for file in target(name)]

    return files


# ---- settings: one JSON text a group, so that a stage is made again only when what it reads has changed -----


def as_json(settings: BaseModel, *, without: Iterable[str] = ()) -> str:
    """Settings as one line of JSON."""
    return json.dumps(settings.model_dump(mode="json", exclude=set(without)), ensure_ascii=False)


def dataset_settings(wildcards: Wildcards, threads: int) -> str:
    """How a data set is made; never a reason to make it again (see `settings_to_run`)."""
    return as_json(SETTINGS.datasets[wildcards.dataset], without=["overrides"])


def dataset_content(wildcards: Wildcards) -> str:
    """The same without where files lie: they may move, and `$SCRATCH` differs from user to user."""
    return as_json(
        SETTINGS.datasets[wildcards.dataset], without=["overrides", "folder", "vae", "encode_batch_size"]
    )


def settings(group: str, *, without: Iterable[str] = ()) -> Callable[[Wildcards], str]:
    """Params function: a group of settings as they are for the data set at hand."""
    return lambda wildcards: as_json(getattr(SETTINGS.for_dataset(wildcards.dataset), group), without=without)


def settings_to_run(group: str, *, without: Iterable[str] = ()) -> Callable[[Wildcards, int], str]:
    """Params function: the same, but never a reason to run again.

    Snakemake compares no params that depend on threads. A rule that uses this has `settings` without what changes
    no result beside it, to be compared.
    """
    return lambda wildcards, threads: settings(group, without=without)(wildcards)


def classifier_settings(*, to_run: bool) -> Callable[..., str]:
    """Params function: the settings of a classifier as they are for the data set at hand.

    Those `to_run` never are a reason to run again (see `settings_to_run`); those to be compared leave out what changes
    no result, and the augmentations that a classifier does not see.
    """

    def as_text(wildcards: Wildcards) -> str:
        unused = set() if to_run else set(NO_RESULT)
        if not to_run and "augmentation" in wildcards.keys():
            unused |= set() if "standard" in wildcards.augmentation else {"standard"}
            unused |= set() if "nfa" in wildcards.augmentation else {"nfa_probability"}
        return as_json(
            SETTINGS.for_dataset(wildcards.dataset).classifiers[wildcards.classifier], without=unused
        )

    if to_run:
        return lambda wildcards, threads: as_text(wildcards)
    return as_text


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
    experiments = SETTINGS.tables[wildcards.table].experiments
    names = dict.fromkeys(experiment.prior for experiment in experiments if experiment.prior)
    return json.dumps({name: SETTINGS.priors[name].model_dump(mode="json") for name in names})


# ---- resources ----------------------------------------------------------------------------------------------


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
