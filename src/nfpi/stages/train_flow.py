"""The stages that make a model: training of a flow under its prior, and import of a released checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_settings import CliPositionalArg

from nfpi.config.base import EXECUTION, NonNegativeFloat, PositiveInt, select_result_settings
from nfpi.config.extensions import compute_code_digest
from nfpi.config.flows import FLOWS
from nfpi.config.priors import PRIORS, LearnedMethod, PriorBlock, PriorConfig
from nfpi.config.training import TrainingConfig
from nfpi.data.errors import DataError
from nfpi.results.recorded.csv_files import write_log
from nfpi.runs import LOG_FILE, MODEL_FILES, Run
from nfpi.runtime.files import file_digest, written_together
from nfpi.stages.base import Stage
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files
from nfpi.stages.training import TrainingStage, read_training_data


def _check_is_learned(prior: PriorBlock) -> PriorBlock:
    if not PRIORS[prior.method].traits["learned"]:
        raise ValueError(f"expected a method that learns the Gaussians along with the flow, received {prior.method}")
    return prior


class TrainFlow(TrainingStage):
    """Train a flow under its prior, from an initial state.

    Resumes if stopped.
    """

    command = "train-flow"
    outputs = {**{name: f"model/{file}" for name, file in MODEL_FILES.items()}, "history": LOG_FILE}
    product = "model"
    timed = ("history",)
    inputs = {
        "data": list_meta_files("train", "validation"),
        "initial": ("state.safetensors", "prior.safetensors"),
        "prior": (),
    }
    blocks = {"learn": "priors.{prior}"}

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
    devices: Annotated[PositiveInt, EXECUTION] = 1
    """GPUs that train together, one process each; all if the machine has fewer; results differ in their last bits"""
    identity: dict[str, Any] | None = None
    """identity of the run, which the initial state and the Gaussians must belong to"""

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        run = Run.from_wildcards(wildcards)
        options = {
            "training": planned.config.resolve_training(wildcards["dataset"], wildcards["flow"]),
            "identity": run.to_json(),
            "code": planned.list_digests(wildcards, "flow"),
        }
        if planned.config.is_learned(wildcards["prior"]):
            options |= {
                "learn": planned.config.priors[wildcards["prior"]],
                "weight": run.weight,
                "code": planned.list_digests(wildcards, "flow", "prior"),
            }
        return options

    def get_facts(self) -> dict[str, Any]:
        """Return λ of the run if the Gaussians are learned."""
        return {"lambda": self.weight} if self.learn is not None else {}

    def run(self) -> None:
        """Train the remaining epochs under Gaussians that are fixed or learned along with the flow."""
        from nfpi.model.trained import TrainedFlow, describe_images
        from nfpi.priors.files import load_prior
        from nfpi.priors.registry import describe_prior
        from nfpi.runtime.device import make_device
        from nfpi.training.flow import continue_training
        from nfpi.training.state import TrainingState

        learned, learning = None, {}
        if self.learn is not None:
            learned = LearnedMethod.from_block(self.learn, self.weight)
            learning = describe_prior(self.learn, self.weight)
        prior_code = compute_code_digest(PRIORS[self.learn.method]) if self.learn is not None else ""
        prior_file = self.prior if self.prior is not None else self.initial / "prior.safetensors"
        state_file = self.initial / "state.safetensors"
        prior, prior_header = load_prior(prior_file)
        device = make_device(self.training.precision, self.devices)
        data = read_training_data(self.data, self.training, device)
        state, header = TrainingState.load(state_file, self.training, data.steps_per_epoch, device.device)
        training = select_result_settings(self.training)
        settings = {
            "training": training,
            "code": compute_code_digest(FLOWS[state.flow.kind]),
            "state": file_digest(state_file),
            "prior": file_digest(prior_file),
            "data": data.train.meta["sha256"],
            **learning,
            **({"prior_code": prior_code} if prior_code else {}),
        }
        minutes = self.training.checkpoint_minutes
        weight = self.weight if learned is not None else prior_header.get("lambda")
        with (
            self.resuming(settings, minutes, weight, seed=state.seed, training=training) as checkpoints,
            device.launch_processes() as processes,
        ):
            state = continue_training(state, prior, data, device, checkpoints, learned, self.output)
        if not processes.first:
            return
        further: dict[str, Any] = {"devices": processes.count}
        if len(state.precisions) > 1:  # it changed when the training was resumed; `training.precision` is the last
            further["precisions"] = state.precision_parts
        record = {key: value for key, value in (prior_header | learning).items() if key not in ("start", "seed")}
        model = TrainedFlow.from_training(
            state,
            prior,
            start=header.get("start"),
            prior_record=record,
            training=self.training.model_dump() | {"precision": device.precision},
            data=describe_images(data.train),
            **further,
        )
        with written_together():
            write_log(self.get_path("history"), state.log)
            model.write(self.get_path("config").parent)


class ImportRelease(Stage):
    """Convert a checkpoint of the authors' release.

    The model can be passed to evaluate, generate and augment.
    """

    command = "import-release"
    outputs = MODEL_FILES
    product = "model"
    inputs = {"data": list_meta_files("train")}

    checkpoint: CliPositionalArg[Path]
    """checkpoint file of the released code; nothing in it is executed"""
    data: Path
    """folder of the splits that the checkpoint was trained on; gives the class names"""
    averaged: bool = True
    """use the averaged (EMA) weights instead of the online ones"""

    def run(self) -> None:
        """Convert the weights and Gaussians of a released checkpoint."""
        from nfpi.data.store import read_image_set
        from nfpi.model.trained import TrainedFlow, describe_images
        from nfpi.release import load_release_checkpoint, make_release_config

        flow, prior = load_release_checkpoint(self.checkpoint, self.averaged)
        train = read_image_set(self.data / "train", verify=False)
        if (flow.shape, prior.num_classes) != (train.shape, train.num_classes):
            raise DataError(
                f"{self.data}: expected images {flow.shape} of {prior.num_classes} classes as in {self.checkpoint}, "
                f"received {train.shape} of {train.num_classes}"
            )
        config = make_release_config(self.checkpoint, self.averaged, describe_images(train))
        TrainedFlow(flow, prior, config).write(self.get_path("config").parent)
