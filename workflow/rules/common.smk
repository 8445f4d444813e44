"""Paths and settings that the stages share."""

import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel

from nfpi.config import BASELINE, NO_FLOW, NO_RESULT, format_weight

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


# ---- settings: one JSON text a group, so that a stage is made again only when what it reads has changed -----


def as_json(settings: BaseModel, *, without: Iterable[str] = ()) -> str:
    """Settings as one line of JSON."""
    return json.dumps(settings.model_dump(mode="json", exclude=set(without)), ensure_ascii=False)


def dataset_settings(wildcards: Wildcards, threads: int) -> str:
    """How a data set is made; never a reason to make it again (see `settings_to_run`)."""
    return as_json(SETTINGS.datasets[wildcards.dataset], without=["overrides"])


def dataset_content(wildcards: Wildcards) -> str:
    """The same without what changes no image: where files lie (`$SCRATCH` differs from user to user), how they are scored.

    Of an encoded data set, the autoencoder's and the images' folders keep their names: another one has another.
    """
    dataset = SETTINGS.datasets[wildcards.dataset]
    names = [path.name for path in (dataset.folder, dataset.vae) if path is not None] if dataset.vae else []
    unseen = ["overrides", "folder", "vae", "encode_batch_size", "real_labels"]
    return " ".join([as_json(dataset, without=unseen), *names])


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
