"""The stages that train a flow: its initial state, the fit of its Gaussians, and its training under its prior."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from nfpi.config.base import EXECUTION, NonNegativeFloat, PositiveInt, Seed, Start
from nfpi.config.flows import FLOWS, FlowConfig, TrainingConfig
from nfpi.config.priors import PRIORS, LearnedMethod, PriorConfig
from nfpi.results.recorded.csv_files import write_log, write_rows
from nfpi.runs import (
    FIT,
    FLOW_RUN,
    INITIAL,
    INITIAL_FILES,
    LOG_FILE,
    MODEL_FILES,
    OWN,
    RESIDUALS,
    Run,
    format_weight,
    split_refitted,
)
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.stages.base import Stage
from nfpi.stages.common import TrainingStage
from nfpi.stages.jobs import Job, Need, Needs, Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files, need_splits

if TYPE_CHECKING:
    from nfpi.runtime.device import Device
    from nfpi.training.batches import TrainingData

logger = logging.getLogger(__name__)


class FlowStage(TrainingStage):
    """A stage that trains a flow."""

    timed = ("history",)
    uses = ("flow",)

    data: Path
    """folder of the splits"""
    training: TrainingConfig = TrainingConfig()
    devices: Annotated[PositiveInt, EXECUTION] = 1
    """GPUs that train together, one process each; all if the machine has fewer; results differ in their last bits"""

    def read_data(self) -> tuple[Device, TrainingData]:
        """Return the device of the training, and the training and validation images."""
        from nfpi.data.store import read_image_set
        from nfpi.runtime.device import make_device
        from nfpi.training.batches import TrainingData

        device = make_device(self.training.precision, self.devices)
        train, validation = (read_image_set(self.data / split) for split in ("train", "validation"))
        held_out = validation if len(validation) else None
        return device, TrainingData(train, held_out, self.training, device.device, device.processes)


class StartFlow(FlowStage):
    """Initialise a flow and its Gaussians on images.

    Also trains the flow for `fit_after_epochs` epochs. Resumes if stopped.
    """

    command = "start-flow"
    places = (INITIAL,)
    outputs = {**INITIAL_FILES, "history": LOG_FILE}
    product = "initial state"
    inputs = {"data": list_meta_files("train", "validation")}
    blocks = {"flow": "flows.{flow}"}

    flow: FlowConfig = FLOWS.validate({})
    """the backbone: its kind and settings"""
    start: Start = "data"
    """initial Gaussians: class means with the class variances (data), with one variance per class (isotropic) or with
    identity covariances (identity), or means drawn from N(0, I) with identity covariances (random)"""
    seed: Seed = 0

    @property
    def declaration(self) -> dict[str, Any]:
        """All that the initial state depends on; of the training, what its epochs before the fit depend on."""
        return super().declaration | {"training": self.training.select_initial_state_settings()}

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits."""
        return {"data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])]}

    def run(self) -> None:
        """Initialise the flow and its Gaussians, and train the epochs before the fit."""
        from nfpi.flows.registry import describe_flow
        from nfpi.priors.files import save_prior, save_statistics
        from nfpi.training.flow import start_training

        device, data = self.read_data()
        header: dict[str, Any] = {"start": self.start, "seed": self.seed}
        training = self.declaration["training"]
        with (
            self.resuming(self.training.checkpoint_minutes, seed=self.seed, training=training) as checkpoints,
            device.launch_processes(),
        ):
            description = describe_flow(self.flow, data.train.shape)
            initial = start_training(data, description, self.start, self.seed, device, checkpoints, self.output)
        if device.processes.first:
            save_prior(self.get_path("prior"), initial.prior, {**header, "lambda": 0.0})
            save_statistics(self.get_path("statistics"), initial.statistics, header)
            write_log(self.get_path("history"), initial.state.log)
            header |= {"devices": device.processes.count, "precision": device.precision}
            initial.state.save(self.get_path("state"), header)


def need_initial(planned: Planned, wildcards: Wildcards, file: str = "") -> Need:
    """Return what a job reads that reads the initial state, or a file of it, that a run continues from."""
    return Need(Job.of(StartFlow, {**wildcards, "start": planned.config.start_of(wildcards["prior"])}), file)


class TrainFlow(FlowStage):
    """Train a flow under its prior, from an initial state.

    Resumes if stopped.
    """

    command = "train-flow"
    places = (FLOW_RUN,)
    outputs = {**{name: f"model/{file}" for name, file in MODEL_FILES.items()}, "history": LOG_FILE}
    product = "model"
    inputs = {
        "data": list_meta_files("train", "validation"),
        "initial": (INITIAL_FILES["state"], INITIAL_FILES["prior"]),
        "prior": (),
    }
    blocks = {"learn": "priors.{prior}"}

    initial: Path
    """folder of the initial state"""
    prior: Path | None = None
    """safetensors file of the fitted Gaussians; None: the initial ones"""
    learn: PriorConfig | None = None
    """method that learns the Gaussians along with the flow; None: they are fixed"""
    weight: NonNegativeFloat = 0.0
    """λ of Eq. 4, if the Gaussians are learned"""
    identity: dict[str, Any] | None = None
    """identity of the run"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        options = super().select_options(planned, wildcards)
        options["identity"] = Run.from_wildcards(wildcards).to_json()
        if planned.config.is_learned(wildcards["prior"]):
            return options | {"code": planned.list_digests(wildcards, "flow", "prior")}
        return options | {"learn": None, "weight": 0.0}

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the flow is trained here, and its Gaussians are not estimated again."""
        prior, refit = split_refitted(wildcards["prior"])
        return prior != OWN and refit is None

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits, the initial state and the Gaussians, fitted or initial."""

        prior = INITIAL_FILES["prior"]
        is_fitted = planned.config.is_fitted(wildcards["prior"])
        return {
            "data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])],
            "initial": [need_initial(planned, wildcards)],
            "prior": [
                Need(Job.of(FitPrior, wildcards), prior) if is_fitted else need_initial(planned, wildcards, prior)
            ],
        }

    def run(self) -> None:
        """Train the remaining epochs under Gaussians that are fixed or learned along with the flow."""
        from nfpi.data.store import digest_images
        from nfpi.model import ClassConditionalFlow
        from nfpi.model.files import describe_images
        from nfpi.model.fitting import assemble_model
        from nfpi.priors.files import load_prior
        from nfpi.priors.registry import describe_prior
        from nfpi.training.flow import continue_training
        from nfpi.training.state import TrainingState

        initial_state, initial_prior = (self.initial / file for file in self.inputs["initial"])
        prior, record = load_prior(self.prior or initial_prior)
        learned = None
        if self.learn is not None:
            learned = LearnedMethod.from_block(self.learn, self.weight)
            record |= describe_prior(self.learn, self.weight)
        device, data = self.read_data()
        state, header = TrainingState.load(initial_state, self.training, data.steps_per_epoch, device.device)
        about = {"seed": state.seed, "training": self.declaration["training"]}
        with (
            self.resuming(self.training.checkpoint_minutes, record.get("lambda"), **about) as checkpoints,
            device.launch_processes(),
        ):
            state = continue_training(state, prior, data, device, checkpoints, learned, self.output)
        if not device.processes.first:
            return
        model = assemble_model(
            state,
            prior,
            start=header.get("start"),
            prior_record={key: value for key, value in record.items() if key not in ("start", "seed")},
            training=self.training.model_dump() | {"precision": device.precision},
            data=describe_images(data.train),
            digests=digest_images(data.train.images),
            devices=device.processes.count,
            threads=device.threads,
        )
        write_log(self.get_path("history"), state.log)
        ClassConditionalFlow(**model).write(self.get_path("config").parent)


class FitPrior(Stage):
    """Fit the Gaussians of an initial state (Eqs. 5-7).

    Uses fixed-point iteration or another method. A fit that diverges is recorded as a result; the command succeeds.
    """

    command = "fit-prior"
    places = (FIT,)
    outputs = {"prior": INITIAL_FILES["prior"], "iterations": "fixed_point.csv"}
    product = "prior"
    inputs = {"initial": (INITIAL_FILES["prior"], INITIAL_FILES["statistics"])}
    blocks = {"prior": "priors.{prior}"}
    uses = ("prior",)

    initial: Path
    """folder of an initial state, with its statistics and Gaussians"""
    prior: PriorConfig = PRIORS.validate({})
    """method of the prior and its settings"""
    weight: NonNegativeFloat
    """λ of Eq. 4"""

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the run's Gaussians are fitted."""
        return planned.config.is_fitted(wildcards["prior"])

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the initial state."""
        return {"initial": [need_initial(planned, wildcards)]}

    def run(self) -> None:
        """Fit the Gaussians to the statistics of an initial state by the prior's method."""
        from nfpi.priors.files import load_prior, load_statistics, save_prior
        from nfpi.priors.registry import fit_prior

        initial, header = load_prior(self.initial / INITIAL_FILES["prior"])
        statistics = load_statistics(self.initial / INITIAL_FILES["statistics"])
        try:
            fitted = fit_prior(self.prior, statistics, initial, self.weight)
        except Diverged as fault:
            fault.context = {"seed": header.get("seed"), "prior": self.prior.model_dump(mode="json")}
            raise
        if "iterations" in fitted.record:
            found = fitted.record["iterations"], fitted.record["converged"]
            logger.info("λ = %s: %d iterations, converged: %s", format_weight(self.weight), *found)
        self._write_residuals(fitted.residuals)
        save_prior(self.get_path("prior"), fitted.prior, header | fitted.record)

    def record_divergence(self, fault: Diverged) -> None:
        """Write a record of the divergence, and the residuals of the fit, if it is the fit that diverged."""
        from nfpi.priors.fixed_point import FixedPointDiverged

        mark_diverged([self.get_path("prior")], fault)
        self._write_residuals(fault.residuals if isinstance(fault, FixedPointDiverged) else [])

    def _write_residuals(self, residuals: list[Any]) -> None:
        rows = [dict(zip(RESIDUALS, (index, *pair), strict=True)) for index, pair in enumerate(residuals, 1)]
        write_rows(self.get_path("iterations"), list(RESIDUALS), rows)
