"""Stages of the flow: initial state, fit, training, import of a release, evaluation, generation and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, model_validator
from pydantic_settings import CliPositionalArg

from nfpi.config import (
    FLOWS,
    PRIORS,
    EvaluationConfig,
    FlowConfig,
    NfaConfig,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    PriorConfig,
    Seed,
    Start,
    TrainingConfig,
)
from nfpi.config.generation import Displacement
from nfpi.config.priors import PriorBlock
from nfpi.runs import IMAGE_SET_FILES, LOG_FILE, METRICS_FILE, MODEL_FILES, PREDICTIONS_FILE
from nfpi.stages.options.base import Stage
from nfpi.stages.options.data import list_meta_files

MODEL = tuple(MODEL_FILES.values())


def _check_is_fitted(prior: PriorBlock) -> PriorBlock:
    if PRIORS[prior.method].traits["learned"]:
        raise ValueError(f"expected a method that fits the Gaussians once, received {prior.method}")
    return prior


def _check_is_learned(prior: PriorBlock) -> PriorBlock:
    if not PRIORS[prior.method].traits["learned"]:
        raise ValueError(f"expected a method that learns the Gaussians along with the flow, received {prior.method}")
    return prior


class StartFlow(Stage):
    """Initialise a flow and its Gaussians on images.

    Also trains the flow for `fit_after_epochs` epochs. Resumes if stopped.
    """

    command = "start-flow"
    work = "nfpi.stages.flow:start_flow"
    outputs = {
        "state": "state.safetensors",
        "prior": "prior.safetensors",
        "statistics": "statistics.safetensors",
        "history": LOG_FILE,
    }
    product = "initial state"
    timed = ("history",)
    inputs = {"data": list_meta_files("train", "validation")}

    data: Path
    """folder of the splits"""
    flow: FlowConfig = FLOWS.validate({})
    """the backbone: its kind and settings"""
    training: TrainingConfig = TrainingConfig()
    devices: PositiveInt = 1
    """GPUs that train together, one process each; all if the machine has fewer; results differ in their last bits"""
    start: Start = "data"
    """initial Gaussians: class means with the class variances (data), with one variance per class (isotropic) or with
    identity covariances (identity), or means drawn from N(0, I) with identity covariances (random)"""
    seed: Seed = 0

    @model_validator(mode="after")
    def _check_flow(self) -> StartFlow:
        if self.flow.training:
            raise ValueError("flow: expected settings of training in --training, received them in --flow")
        return self

    def get_facts(self) -> dict[str, Any]:
        """Return the seed of the run, and λ = 0, as no Gaussians are fitted yet."""
        return {"seed": self.seed, "lambda": 0.0}


class FitPrior(Stage):
    """Fit the Gaussians of an initial state (Eqs. 5-7).

    Uses fixed-point iteration or another method. A fit that diverges is recorded as a result; the command succeeds.
    """

    command = "fit-prior"
    work = "nfpi.stages.flow:fit_prior"
    outputs = {"prior": "prior.safetensors", "iterations": "fixed_point.csv"}
    product = "prior"
    inputs = {"initial": ("prior.safetensors", "statistics.safetensors")}

    initial: Path
    """folder of an initial state, with its statistics and Gaussians"""
    prior: Annotated[PriorConfig, AfterValidator(_check_is_fitted)] = PRIORS.validate({})
    """method of the prior and its settings"""
    weight: NonNegativeFloat
    """λ of Eq. 4"""

    def get_facts(self) -> dict[str, Any]:
        """Return λ of the run."""
        return {"lambda": self.weight}


class TrainFlow(Stage):
    """Train a flow under its prior, from an initial state.

    Resumes if stopped.
    """

    command = "train-flow"
    work = "nfpi.stages.flow:train_flow"
    outputs = {**{name: f"model/{file}" for name, file in MODEL_FILES.items()}, "history": LOG_FILE}
    product = "model"
    timed = ("history",)
    inputs = {
        "data": list_meta_files("train", "validation"),
        "initial": ("state.safetensors", "prior.safetensors"),
        "prior": (),
    }

    data: Path
    """folder of the splits"""
    initial: Path
    """folder of the initial state"""
    prior: Path | None = None
    """safetensors file of the fitted Gaussians; None: the initial ones"""
    learn: Annotated[PriorConfig, AfterValidator(_check_is_learned)] | None = None
    """method that learns the Gaussians along with the flow; None: they are fixed"""
    weight: NonNegativeFloat = 0.0
    """λ of Eq. 4, if the Gaussians are learned"""
    training: TrainingConfig = TrainingConfig()
    devices: PositiveInt = 1
    """GPUs that train together, one process each; all if the machine has fewer; results differ in their last bits"""
    run: dict[str, Any] | None = None
    """identity of the run, which the initial state and the Gaussians must belong to"""

    def get_facts(self) -> dict[str, Any]:
        """Return λ of the run if the Gaussians are learned."""
        return {"lambda": self.weight} if self.learn is not None else {}


class ImportRelease(Stage):
    """Convert a checkpoint of the authors' release.

    The model can be passed to evaluate, generate and augment.
    """

    command = "import-release"
    work = "nfpi.stages.flow:import_release"
    outputs = MODEL_FILES
    product = "model"
    inputs = {"data": list_meta_files("train")}

    checkpoint: CliPositionalArg[Path]
    """checkpoint file of the released code; nothing in it is executed"""
    data: Path
    """folder of the splits that the checkpoint was trained on; gives the class names"""
    averaged: bool = True
    """use the averaged (EMA) weights instead of the online ones"""


class Evaluate(Stage):
    """Measure NF-Acc, top-5, ECE and bits/dim of a flow.

    Uses the validation and the test split.
    """

    command = "evaluate"
    work = "nfpi.stages.evaluate:evaluate"
    outputs = {"metrics": METRICS_FILE, "predictions": PREDICTIONS_FILE}
    product = "metrics"
    timed = ("metrics",)
    inputs = {"data": list_meta_files("validation", "test"), "model": MODEL, "history": ()}

    data: Path
    """folder of the splits"""
    model: Path
    """folder of the model"""
    history: Path | None = None
    """log.csv of its training, for the training time"""
    run: dict[str, Any] | None = None
    """identity of the run, recorded with the metrics"""
    metrics: list[str] = []
    """names of additional metrics to compute, defined by extensions"""
    evaluation: EvaluationConfig = EvaluationConfig()


class Generate(Stage):
    """Draw labelled images from a trained flow.

    Writes them in the on-disk format of data sets. Resumes if stopped.
    """

    command = "generate"
    work = "nfpi.stages.generate:generate"
    outputs = IMAGE_SET_FILES
    product = "generated images"
    replaces_folder = True
    inputs = {"model": MODEL}

    model: Path
    """folder of the model"""
    temperature: PositiveFloat = 1.0
    """scale of the deviations from the class means"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000
    seed: Seed = 0


class Augment(Stage):
    """Make latent-augmented variants of training images.

    Writes variants of all images in the on-disk format of data sets. Resumes if stopped.
    """

    command = "augment"
    work = "nfpi.stages.generate:augment"
    outputs = IMAGE_SET_FILES
    product = "augmented images"
    replaces_folder = True
    inputs = {"data": list_meta_files("train"), "model": MODEL}

    data: Path
    """folder of the splits; the variants are written in the order of its training images"""
    model: Path
    """folder of the model"""
    nfa: NfaConfig = NfaConfig()
    displacement: Displacement = "mix"
    """mix: move each latent towards another of its class (NFA); noise: by the same distance in a random direction"""
    seed: Seed = 0
