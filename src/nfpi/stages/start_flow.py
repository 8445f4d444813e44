"""The stage that makes the initial state of a flow, which all priors and λ of a seed share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import model_validator

from nfpi.config.base import EXECUTION, PositiveInt, Seed, Start
from nfpi.config.extensions import compute_code_digest
from nfpi.config.flows import FLOWS, FlowConfig
from nfpi.config.training import TrainingConfig
from nfpi.results.recorded.csv_files import write_log
from nfpi.runs import LOG_FILE
from nfpi.runtime.files import written_together
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files
from nfpi.stages.training import TrainingStage, read_training_data


class StartFlow(TrainingStage):
    """Initialise a flow and its Gaussians on images.

    Also trains the flow for `fit_after_epochs` epochs. Resumes if stopped.
    """

    command = "start-flow"
    outputs = {
        "state": "state.safetensors",
        "prior": "prior.safetensors",
        "statistics": "statistics.safetensors",
        "history": LOG_FILE,
    }
    product = "initial state"
    timed = ("history",)
    inputs = {"data": list_meta_files("train", "validation")}
    blocks = {"flow": "flows.{flow}"}

    data: Path
    """folder of the splits"""
    flow: FlowConfig = FLOWS.validate({})
    """the backbone: its kind and settings"""
    training: TrainingConfig = TrainingConfig()
    devices: Annotated[PositiveInt, EXECUTION] = 1
    """GPUs that train together, one process each; all if the machine has fewer; results differ in their last bits"""
    start: Start = "data"
    """initial Gaussians: class means with the class variances (data), with one variance per class (isotropic) or with
    identity covariances (identity), or means drawn from N(0, I) with identity covariances (random)"""
    seed: Seed = 0

    @property
    def declaration(self) -> dict[str, Any]:
        """All that the initial state depends on; of the training, what its epochs before the fit depend on."""
        return super().declaration | {"training": self.training.select_initial_state_settings()}

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job except paths."""
        dataset, flow = wildcards["dataset"], wildcards["flow"]
        return {
            "flow": planned.config.for_dataset(dataset).flows[flow].model_copy(update={"training": {}}),
            "training": planned.config.resolve_training(dataset, flow),
            "start": wildcards["start"],
            "seed": int(wildcards["seed"]),
            "code": planned.list_digests(wildcards, "flow"),
        }

    @model_validator(mode="after")
    def _check_flow(self) -> StartFlow:
        if self.flow.training:
            raise ValueError("flow: expected settings of training in --training, received them in --flow")
        return self

    def get_facts(self) -> dict[str, Any]:
        """Return the seed of the run, and λ = 0, as no Gaussians are fitted yet."""
        return {"seed": self.seed, "lambda": 0.0}

    def run(self) -> None:
        """Initialise the flow and its Gaussians, and train the epochs before the fit."""
        from nfpi.priors.files import save_prior, save_statistics
        from nfpi.runtime.device import make_device
        from nfpi.training.flow import start_training

        device = make_device(self.training.precision, self.devices)
        data = read_training_data(self.data, self.training, device)
        header: dict[str, Any] = {"start": self.start, "seed": self.seed}
        training = self.training.select_initial_state_settings()
        kind, architecture = self.flow.kind, FLOWS.extract_settings(self.flow).model_dump(mode="json")
        settings = {
            **header,
            "flow": {"kind": kind, **architecture},
            "code": compute_code_digest(FLOWS[kind]),
            "training": training,
            "data": data.train.meta["sha256"],
        }
        description = {"kind": kind, "shape": list(data.train.shape), "settings": architecture}
        minutes = self.training.checkpoint_minutes
        with (
            self.resuming(settings, minutes, seed=self.seed, training=training) as checkpoints,
            device.launch_processes() as processes,
        ):
            initial = start_training(data, description, self.start, self.seed, device, checkpoints, self.output)
        if not processes.first:
            return
        with written_together():
            save_prior(self.get_path("prior"), initial.prior, {**header, "lambda": 0.0})
            save_statistics(self.get_path("statistics"), initial.statistics, header)
            write_log(self.get_path("history"), initial.state.log)
            initial.state.save(
                self.get_path("state"), {**header, "devices": processes.count, "precision": device.precision}
            )
