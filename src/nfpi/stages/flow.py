"""Stages of the flow: start, training, import, evaluation."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_settings import CliPositionalArg

from nfpi.config.settings import NO_RESULT, EvaluationConfig, FlowConfig, GradientPrior, TrainingConfig
from nfpi.config.base import NonNegativeFloat, NonNegativeInt, PositiveInt, Split, Start
from nfpi.stages.base import HeavyStage, mark_metrics, write_log

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from nfpi.data.store import ImageSet
    from nfpi.priors.fixed_point import FixedPointDiverged
    from nfpi.training.batches import TrainingData

logger = logging.getLogger(__name__)


class StartFlow(HeavyStage):
    """Initialise the flow and the Gaussians on data, and train the epochs before the fit."""

    data: Path
    """folder of the splits"""
    flow: FlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    devices: PositiveInt = 1
    """GPUs that train together, a process each, if the machine has so many; results differ in their last bits"""
    start: Start = "data"
    """initial Gaussians: class means with class variances (data) or identity covariances (identity), or means drawn
    from N(0, I) with identity covariances (random)"""
    seed: NonNegativeInt = 0
    output: Path
    """folder of state.safetensors, prior.safetensors, statistics.safetensors and log.csv"""

    def run(self) -> None:
        """Start one seed."""
        from nfpi.runtime.checkpoints import CheckpointRing
        from nfpi.runtime.devices import make_fabric
        from nfpi.runtime.files import written_together
        from nfpi.results.records import config_hash
        from nfpi.runtime.processes import one_process_a_device
        from nfpi.runtime.tensors import save_prior, save_statistics
        from nfpi.training.loop import start_training

        fabric = make_fabric(self.training.precision, self.devices)
        data = _training_data(self.data, self.training, fabric)
        header: dict[str, Any] = {"start": self.start, "seed": self.seed}
        settings = {
            **header,
            "flow": self.flow.model_dump(),
            "training": self.training.model_dump(exclude=NO_RESULT | {"epochs"}),
            "data": data.train.meta["sha256"],
        }
        ring = CheckpointRing(self.output, config_hash(settings), self.training.checkpoint_minutes)
        with one_process_a_device(fabric) as processes:
            begun = start_training(data, self.flow, self.start, self.seed, fabric, ring)
        if not processes.first:
            return
        with written_together():
            save_prior(self.output / "prior.safetensors", begun.prior, {**header, "weight": 0.0})
            save_statistics(self.output / "statistics.safetensors", begun.statistics, header)
            write_log(self.output / "log.csv", begun.state.log)
            header |= {"training": self.training.model_dump(), "data": _data_header(data.train)}
            begun.state.save(self.output / "state.safetensors", {**header, "devices": processes.count})
        ring.clear()


class TrainFlow(HeavyStage):
    """Train the flow under its prior, from where the start left it. A run that was cut goes on by itself."""

    data: Path
    """folder of the splits"""
    state: Path
    """state.safetensors of a start"""
    prior: Path
    """the Gaussians to train under, fitted or initial; where they are learned, the initial ones"""
    learn: GradientPrior | None = None
    """learn the Gaussians by gradient descent along with the flow (their start is that of `prior`); none: they stay"""
    weight: NonNegativeFloat = 0.0
    """λ of Eq. 4, where the Gaussians are learned"""
    training: TrainingConfig = TrainingConfig()
    devices: PositiveInt = 1
    """GPUs that train together, a process each, if the machine has so many; results differ in their last bits"""
    output: Path
    """folder of flow.safetensors (averaged weights), prior.safetensors and log.csv"""

    def run(self) -> None:
        """Train the remaining epochs."""
        from nfpi.runtime.checkpoints import CheckpointRing
        from nfpi.runtime.devices import make_fabric
        from nfpi.runtime.files import file_digest, written_together
        from nfpi.results.records import config_hash
        from nfpi.priors.gradient_descent import GradientDescentConfig
        from nfpi.runtime.processes import one_process_a_device
        from nfpi.runtime.tensors import load_prior, save_flow, save_prior
        from nfpi.training.state import TrainingState
        from nfpi.training.loop import continue_training

        learned, learning = None, {}
        if self.learn is not None:
            settings = self.learn.model_dump(exclude={"method", "start"})
            learned = GradientDescentConfig(weight=self.weight, **settings)
            learning = {"weight": self.weight, "settings": self.learn.model_dump()}
        prior, prior_header = load_prior(self.prior)
        fabric = make_fabric(self.training.precision, self.devices)
        data = _training_data(self.data, self.training, fabric)
        fingerprint = config_hash(
            {
                "training": self.training.model_dump(exclude=NO_RESULT),
                "state": file_digest(self.state),
                "prior": file_digest(self.prior),
                "data": data.train.meta["sha256"],
                **learning,
            }
        )
        ring = CheckpointRing(self.output, fingerprint, self.training.checkpoint_minutes)
        state, header = TrainingState.load(self.state, self.training, data.steps_per_epoch, fabric.device)
        with one_process_a_device(fabric) as processes:
            state = continue_training(state, prior, data, fabric, ring, learned)
        if not processes.first:
            return
        final = state.learner.prior if state.learner is not None else prior
        with written_together():
            save_prior(self.output / "prior.safetensors", final, prior_header | learning)
            write_log(self.output / "log.csv", state.log)
            save_flow(
                self.output / "flow.safetensors",
                state.averaged_flow,
                {
                    "seed": state.seed,
                    "start": header["start"],
                    "step": state.step,
                    "training": self.training.model_dump(),
                    "data": _data_header(data.train),
                    "devices": processes.count,
                },
            )
        ring.clear()

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to train under."""
        from nfpi.runtime.divergence import mark_tensors

        mark_tensors(self.output / "flow.safetensors", fault)
        mark_tensors(self.output / "prior.safetensors", fault)
        write_log(self.output / "log.csv", [])


class ImportRelease(HeavyStage):
    """Read a checkpoint of the authors' release; evaluate, generate and classify go on from it."""

    checkpoint: CliPositionalArg[Path]
    """file of the released code; nothing in it is executed"""
    data: Path
    """folder of the splits that it was trained on: the names of the classes are taken from it"""
    averaged: bool = True
    """take the averaged (EMA) weights; else the online ones"""
    output: Path
    """folder of flow.safetensors and prior.safetensors"""

    def run(self) -> None:
        """Translate the weights and the Gaussians."""
        from nfpi.data.errors import DataError
        from nfpi.data.store import read_image_set
        from nfpi.runtime.files import written_together
        from nfpi.release import load_release_checkpoint
        from nfpi.runtime.tensors import save_flow, save_prior

        flow, prior = load_release_checkpoint(self.checkpoint, self.averaged)
        train = read_image_set(self.data / "train", verify=False)
        if (flow.shape, prior.num_classes) != (train.shape, train.num_classes):
            raise DataError(
                f"{self.data}: expected images {flow.shape} of {prior.num_classes} classes as in {self.checkpoint}, "
                f"received {train.shape} of {train.num_classes}"
            )
        header = {"start": "release", "seed": 0, "checkpoint": str(self.checkpoint), "averaged": self.averaged}
        training = TrainingConfig().model_dump(include={"grey_noise", "latent_noise"})
        settings = {**header, "training": training, "data": _data_header(train)}
        with written_together():
            save_prior(self.output / "prior.safetensors", prior, header)
            save_flow(self.output / "flow.safetensors", flow, settings)


class Evaluate(HeavyStage):
    """Measure NF-Acc, top-5 and bits/dim of a trained flow, on the validation and the test split."""

    data: Path
    """folder of the splits"""
    flow: Path
    """flow.safetensors"""
    prior: Path
    """prior.safetensors beside it"""
    evaluation: EvaluationConfig = EvaluationConfig()
    output: Path
    """metrics.json"""

    def run(self) -> None:
        """Score both splits."""
        from nfpi.data.domain import domain_of_flow
        from nfpi.data.store import read_image_set
        from nfpi.runtime.devices import describe_device, make_fabric
        from nfpi.evaluation import evaluate_flow
        from nfpi.results.records import write_metrics
        from nfpi.runtime.tensors import load_flow, load_prior

        began = time.monotonic()
        flow, header = load_flow(self.flow)
        prior, prior_header = load_prior(self.prior)
        device = make_fabric().device
        domain = domain_of_flow(header)
        splits: tuple[Split, ...] = ("validation", "test")
        validation, test = (
            evaluate_flow(
                flow.to(device),
                prior,
                read_image_set(self.data / split),
                batch_size=self.evaluation.batch_size,
                seed=header["seed"],
                domain=domain,
                device=device,
            )
            for split in splits
        )
        write_metrics(
            self.output,
            {
                "nf_acc": test.nf_acc,
                "nf_top5": test.nf_top5,
                "bits_per_dim": test.bits_per_dim,
                "validation_nf_acc": validation.nf_acc,
                "validation_bits_per_dim": validation.bits_per_dim,
            },
            n=test.n,
            seed=header["seed"],
            settings={"flow": header, "prior": prior_header},
            device=describe_device(device),
            seconds=time.monotonic() - began,
        )
        logger.info("NF-Acc %.2f %%, %.4f bits/dim on %d test images", test.nf_acc, test.bits_per_dim, test.n)

    def mark(self, fault: FixedPointDiverged) -> None:
        """The metrics are « diverged »."""
        mark_metrics(self.output, fault)


def _training_data(folder: Path, config: TrainingConfig, fabric: Fabric) -> TrainingData:
    from nfpi.data.store import read_image_set
    from nfpi.runtime.processes import Processes
    from nfpi.training.batches import TrainingData

    train, validation = (read_image_set(folder / split) for split in ("train", "validation"))
    return TrainingData(train, validation, config, fabric.device, Processes.of(fabric))


def _data_header(train: ImageSet) -> dict[str, Any]:
    """What later stages need to know of the images the flow was trained on: of their `meta`, all but its counts."""
    return {key: train.meta[key] for key in ("name", "classes", "dtype", "extra")}
