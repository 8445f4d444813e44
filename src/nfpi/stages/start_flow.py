"""The stage that makes the initial state of a flow, which all priors and λ of a seed share."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import model_validator

from nfpi.config.base import EXECUTION, PositiveInt, Seed, Start
from nfpi.config.extensions import compute_code_digest
from nfpi.config.flows import FLOWS, FlowConfig
from nfpi.config.training import TrainingConfig
from nfpi.results.recorded.csv_files import write_log
from nfpi.results.recorded.records import config_hash
from nfpi.runs import LOG_FILE
from nfpi.runtime.files import run_after_commit, written_together
from nfpi.stages.base import Stage
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.prepare_data import list_meta_files

if TYPE_CHECKING:
    from nfpi.runtime.checkpoints import Checkpoints
    from nfpi.runtime.device import Device
    from nfpi.runtime.divergence import TrainingDiverged
    from nfpi.training.batches import TrainingData

logger = logging.getLogger(__name__)


class StartFlow(Stage):
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
        from nfpi.runtime.checkpoints import Checkpoints
        from nfpi.runtime.device import make_device
        from nfpi.runtime.divergence import TrainingDiverged
        from nfpi.training.flow import start_training

        device = make_device(self.training.precision, self.devices)
        data = read_training_data(self.data, self.training, device)
        header: dict[str, Any] = {"start": self.start, "seed": self.seed}
        kind, architecture = self.flow.kind, FLOWS.extract_settings(self.flow).model_dump(mode="json")
        settings = {
            **header,
            "flow": {"kind": kind, **architecture},
            "code": compute_code_digest(FLOWS[kind]),
            "training": self.training.select_initial_state_settings(),
            "data": data.train.meta["sha256"],
        }
        checkpoints = Checkpoints(self.output, config_hash(settings), self.training.checkpoint_minutes)
        description = {"kind": kind, "shape": list(data.train.shape), "settings": architecture}
        try:
            with device.launch_processes() as processes:
                initial = start_training(data, description, self.start, self.seed, device, checkpoints, self.output)
        except TrainingDiverged as fault:
            fault.context = {"seed": self.seed, "training": self.training.select_initial_state_settings()}
            keep_divergence(self, fault, device, checkpoints)
            return
        if not processes.first:
            return
        with written_together():
            save_prior(self.get_path("prior"), initial.prior, {**header, "lambda": 0.0})
            save_statistics(self.get_path("statistics"), initial.statistics, header)
            write_log(self.get_path("history"), initial.state.log)
            initial.state.save(
                self.get_path("state"), {**header, "devices": processes.count, "precision": device.precision}
            )
        run_after_commit(checkpoints.clear)


def read_training_data(folder: Path, config: TrainingConfig, device: Device) -> TrainingData:
    """Read the training and validation images of a flow."""
    from nfpi.data.store import read_image_set
    from nfpi.training.batches import TrainingData
    from nfpi.training.tracking import require_tracker

    require_tracker(config)
    train, validation = (read_image_set(folder / split) for split in ("train", "validation"))
    return TrainingData(train, validation if len(validation) else None, config, device.device, device.processes)


def keep_divergence(stage: Stage, fault: TrainingDiverged, device: Device, checkpoints: Checkpoints) -> None:
    """Write the log of a diverged training and, as a rerun would diverge again, outputs that record the divergence.

    Raises:
        ArithmeticError: in all processes but the first, which writes the files.
    """
    from nfpi.runtime.divergence import mark_diverged

    if not device.processes.first:
        raise ArithmeticError(str(fault))
    with written_together():
        mark_diverged([path for path in stage.list_output_paths() if path != stage.get_path("history")], fault)
        write_log(stage.get_path("history"), fault.log)
    run_after_commit(checkpoints.clear)
    logger.warning("%s", fault)
