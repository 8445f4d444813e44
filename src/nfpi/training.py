"""Training of the flow: its start, the statistics of its latents, and the epochs under a fixed prior.

A run is cut in two so that every λ shares its beginning: :func:`start_training` initialises the flow and the prior and
trains the first epochs, :func:`continue_training` goes on from what it left, under the fitted prior. What is random
depends on the run's seed, the epoch and the batch only, so on a CPU two parts of a run equal the whole, bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from tqdm import tqdm

from nfpi.config import FlowConfig, Start, TrainingConfig
from nfpi.data import Domain, ImageSet, batches, domain_of, num_batches, training_transform
from nfpi.evaluation import check_fit, evaluate_flow
from nfpi.flows import MatrixExponentialFlow
from nfpi.likelihood import negative_log_likelihood
from nfpi.priors import ClassStatistics, GaussianPrior
from nfpi.randomness import derive_seed, generator_for
from nfpi.serialization import FormatError, build_flow, load_tensors, save_tensors

logger = logging.getLogger(__name__)

LogRow = dict[str, float | int | None]

_STEPS_BETWEEN_CHECKS = 20
# epochs of the stream that training never reaches, so that their order and augmentations are their own
_INITIALIZATION_EPOCH, _STATISTICS_EPOCH = 2**31, 2**31 + 1


class TrainingDiverged(ArithmeticError):
    """The loss is no longer a finite number; the message is one line."""


@dataclass
class TrainingState:
    """All that the next step depends on.

    Attributes:
        flow: the weights that are trained.
        average: their exponential moving average, decay min(ema_decay, 1 − (1 + n)^−ema_power) at its n-th step; it
            follows the weights during the first epoch and is what is evaluated and sampled from.
        optimizer: Adamax, with its moments.
        seed: of the run.
        step: steps made.
        epoch_nll: sum of the losses of the current epoch's images so far, in nats; ().
        log: a row for each epoch.
    """

    flow: MatrixExponentialFlow
    average: ModelEmaV3
    optimizer: torch.optim.Adamax
    seed: int
    step: int
    epoch_nll: Tensor
    log: list[LogRow] = field(default_factory=list)

    @classmethod
    def new(cls, flow: MatrixExponentialFlow, config: TrainingConfig, seed: int, steps_per_epoch: int) -> TrainingState:
        """The state before the first step."""
        average = ModelEmaV3(
            flow,
            decay=config.ema_decay,
            use_warmup=True,
            warmup_gamma=1.0,
            warmup_power=config.ema_power,
            update_after_step=steps_per_epoch,
        )
        optimizer = torch.optim.Adamax(flow.parameters(), lr=config.learning_rate)
        device = next(flow.parameters()).device
        return cls(flow, average, optimizer, seed, 0, torch.zeros((), device=device))

    @property
    def averaged_flow(self) -> MatrixExponentialFlow:
        """The flow with averaged weights."""
        return self.average.module

    def save(self, path: Path, header: dict[str, Any]) -> None:
        """Write the state, with more settings in its header."""
        names = [name for name, _ in self.flow.named_parameters()]
        tensors = {f"flow.{name}": value for name, value in self.flow.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.averaged_flow.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[index]}.{key}": value for key, value in moments.items()}
        tensors["epoch_nll"] = self.epoch_nll
        own = {"flow": self.flow.settings, "seed": self.seed, "step": self.step, "log": self.log}
        save_tensors(path, tensors, {**header, **own})

    @classmethod
    def load(
        cls, path: Path, config: TrainingConfig, steps_per_epoch: int, device: torch.device
    ) -> tuple[TrainingState, dict[str, Any]]:
        """Read a state that :meth:`save` wrote, and its header.

        Raises:
            FormatError: the file is missing, damaged, or holds something else.
        """
        tensors, header = load_tensors(path)

        def under(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        try:
            flow = build_flow(path, under("flow."), header).to(device)
            state = cls.new(flow, config, int(header["seed"]), steps_per_epoch)
            state.averaged_flow.load_state_dict(under("average."))
            moments = {index: under(f"optimizer.{name}.") for index, (name, _) in enumerate(flow.named_parameters())}
            if state.optimizer.param_groups[0]["params"] and any(moments.values()):
                state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
            state.step, state.log = int(header["step"]), list(header["log"])
            state.epoch_nll.copy_(tensors["epoch_nll"])
        except (KeyError, RuntimeError) as error:
            first_line = str(error).splitlines()[0]
            raise FormatError(f"{path}: expected a training state, received something else ({first_line})") from None
        return state, header


@dataclass(frozen=True)
class TrainingStart:
    """What every λ goes on from.

    Attributes:
        state: after the first epochs.
        prior: the initial Gaussians, under which they were trained; float64.
        statistics: of the training latents now, under the online weights.
    """

    state: TrainingState
    prior: GaussianPrior
    statistics: ClassStatistics


@dataclass(frozen=True)
class TrainingData:
    """The images of a training, and how they reach the flow.

    Attributes:
        train, validation: image sets.
        config: batch size, augmentation, noise.
        device: where batches go.
    """

    train: ImageSet
    validation: ImageSet
    config: TrainingConfig
    device: torch.device

    @cached_property
    def domain(self) -> Domain:
        """Pixels or latents, and their noise."""
        config = self.config
        return domain_of(self.train.meta, grey_noise=config.grey_noise, latent_noise=config.latent_noise)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return num_batches(len(self.train), self.config.batch_size)

    def stream(self, seed: int, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches (x, labels) of an epoch, augmented and with their domain's noise: x (B, C, H, W), labels (B,)."""
        config = self.config
        flip = self.train.meta["extra"]["flip"]
        stream = batches(
            self.train,
            config.batch_size,
            seed=derive_seed(seed, "order"),
            epoch=epoch,
            shuffle=True,
            transform=training_transform(config.augmentation, self.train.shape, flip),
            start_batch=start_batch,
            workers=config.workers,
            pin_memory=self.device.type == "cuda",
        )
        for index, (images, labels) in enumerate(stream, start_batch):
            generator = generator_for(self.device, seed, "dequantize", epoch, index)
            x = self.domain.to_flow(images.to(self.device, non_blocking=True), generator)
            yield x, labels.to(self.device, non_blocking=True)


def start_training(
    data: TrainingData, flow_config: FlowConfig, start: Start, seed: int, fabric: Fabric
) -> TrainingStart:
    """Initialise the flow on data, set the initial Gaussians, and train the epochs before the fit.

    Args:
        data: images and knobs.
        flow_config: architecture.
        start: class means with class variances (`data`) or with identity covariances (`identity`).
        seed: of the run.
        fabric: device and precision.
    """
    torch.manual_seed(derive_seed(seed, "weights"))
    flow = MatrixExponentialFlow(data.train.shape, **flow_config.model_dump()).to(data.device)
    flow.initialize(_first_images(data, seed))
    statistics = latent_statistics(flow, data, seed)
    prior = initial_prior(statistics, start)
    state = TrainingState.new(flow, data.config, seed, data.steps_per_epoch)
    if data.config.fit_after_epochs:
        state = _train(state, prior, data, data.config.fit_after_epochs, fabric)
        statistics = latent_statistics(flow, data, seed)
    return TrainingStart(state, prior, statistics)


def continue_training(
    state: TrainingState,
    prior: GaussianPrior,
    data: TrainingData,
    fabric: Fabric,
    checkpoint: Path | None = None,
    header: dict[str, Any] | None = None,
) -> TrainingState:
    """Train the remaining epochs under a prior that stays as it is.

    Args:
        state: from :func:`start_training`, or from a checkpoint.
        prior: K Gaussians in D = C·H·W dimensions.
        data: images and knobs.
        fabric: device and precision.
        checkpoint: file that the state is written to every `checkpoint_minutes`; `header` goes with it.

    Raises:
        ValueError: state, prior and images do not fit together.
        TrainingDiverged: the loss is not finite.
    """
    check_fit(state.flow, prior, data.train)
    if len(state.log) != state.step // data.steps_per_epoch:
        raise ValueError(
            f"state: expected {len(state.log)} epochs of {data.steps_per_epoch} steps, received step {state.step}: "
            "was it trained on other images, or with another batch_size?"
        )
    return _train(state, prior, data, data.config.epochs, fabric, checkpoint, header)


def initial_prior(statistics: ClassStatistics, start: Start) -> GaussianPrior:
    """Gaussians at the class means, with the class variances (`data`) or with identity covariances (`identity`)."""
    statistics.check()
    variance = statistics.variance if start == "data" else torch.ones_like(statistics.mean)
    return GaussianPrior(statistics.mean, variance)


@torch.no_grad()
def latent_statistics(flow: MatrixExponentialFlow, data: TrainingData, seed: int) -> ClassStatistics:
    """Statistics of the latents of all training images, augmented and dequantised, in one pass."""
    dimensions = torch.Size(data.train.shape).numel()
    device = "cpu" if data.device.type == "mps" else data.device  # MPS has no float64
    statistics = ClassStatistics.empty(data.train.num_classes, dimensions, device=device)
    for x, labels in data.stream(seed, _STATISTICS_EPOCH):
        statistics.update(flow(x)[0], labels)
    return statistics


def _first_images(data: TrainingData, seed: int) -> Tensor:
    """Images of the data-dependent initialisation, (B, C, H, W)."""
    taken: list[Tensor] = []
    for x, _ in data.stream(seed, _INITIALIZATION_EPOCH):
        taken.append(x)
        if sum(map(len, taken)) >= data.config.initialization_images:
            break
    return torch.cat(taken)[: data.config.initialization_images]


def _train(
    state: TrainingState,
    prior: GaussianPrior,
    data: TrainingData,
    until_epoch: int,
    fabric: Fabric,
    checkpoint: Path | None = None,
    header: dict[str, Any] | None = None,
) -> TrainingState:
    """Train from the state's step to the end of an epoch, counted from the beginning of the run."""
    config, steps_per_epoch = data.config, data.steps_per_epoch
    prior = prior.to(dtype=torch.get_default_dtype()).to(data.device)
    flow, optimizer = fabric.setup(state.flow, state.optimizer)
    flow.train()
    saved = epoch_began = time.monotonic()
    progress = tqdm(
        total=until_epoch * steps_per_epoch,
        initial=state.step,
        desc="flow",
        unit="step",
        leave=False,
        disable=None,
    )

    def save_when_due() -> None:
        nonlocal saved
        if checkpoint and time.monotonic() - saved > 60 * config.checkpoint_minutes:
            _require_finite(state, config)
            state.save(checkpoint, header or {})
            saved = time.monotonic()

    while state.step < until_epoch * steps_per_epoch:
        epoch, batch = divmod(state.step, steps_per_epoch)
        for x, labels in data.stream(state.seed, epoch, batch):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (state.step + 1) / max(1, config.warmup_steps))
            try:
                nll = negative_log_likelihood(flow, prior, x, labels)
            except ArithmeticError:  # the series of a coupling is endless once its weights ran away
                raise _diverged(state.step + 1, state.seed, config) from None
            optimizer.zero_grad()
            fabric.backward(nll.mean())
            if config.gradient_clip:
                fabric.clip_gradients(flow, optimizer, max_norm=config.gradient_clip)
            optimizer.step()
            state.step += 1
            state.average.update(state.flow, step=state.step)
            state.epoch_nll += nll.detach().sum()
            progress.update()
            if state.step % _STEPS_BETWEEN_CHECKS == 0 or state.step % steps_per_epoch == 0:
                _require_finite(state, config)
                progress.set_postfix_str(f"epoch {epoch + 1}", refresh=False)
            if state.step % steps_per_epoch:  # an epoch's last state is whole once its row is in the log
                save_when_due()
        _close_epoch(state, prior, data, epoch + 1, time.monotonic() - epoch_began)
        save_when_due()
        epoch_began = time.monotonic()
    progress.close()
    return state


def _require_finite(state: TrainingState, config: TrainingConfig) -> None:
    if not torch.isfinite(state.epoch_nll):
        raise _diverged(state.step, state.seed, config)


def _diverged(step: int, seed: int, config: TrainingConfig) -> TrainingDiverged:
    return TrainingDiverged(
        f"training: the loss is not finite by step {step} (seed {seed}): "
        f"try a smaller learning_rate (now {config.learning_rate:g}) or a gradient_clip "
        f"(now {config.gradient_clip:g}; 0 is none)"
    )


def _close_epoch(state: TrainingState, prior: GaussianPrior, data: TrainingData, epoch: int, seconds: float) -> None:
    """Add the epoch's row to the log; evaluate on the validation split where it is due."""
    config, dimensions = data.config, torch.Size(data.train.shape).numel()
    row: LogRow = {
        "epoch": epoch,
        "step": state.step,
        "learning_rate": state.optimizer.param_groups[0]["lr"],
        "train_bits_per_dim": float(data.domain.bits_per_dim(state.epoch_nll.cpu() / len(data.train), dimensions)),
        "validation_bits_per_dim": None,
        "validation_nf_acc": None,
        "seconds": round(seconds, 3),
    }
    state.epoch_nll.zero_()
    line = f"epoch {epoch}/{config.epochs}: train {row['train_bits_per_dim']:.4f} bits/dim, {seconds:.1f} s"
    if epoch % config.evaluate_every == 0 or epoch == config.epochs:
        scores = evaluate_flow(
            state.averaged_flow,
            prior,
            data.validation,
            batch_size=config.batch_size,
            seed=state.seed,
            domain=data.domain,
            device=data.device,
        )
        row |= {"validation_bits_per_dim": scores.bits_per_dim, "validation_nf_acc": scores.nf_acc}
        line += f"; validation {scores.bits_per_dim:.4f} bits/dim, NF-Acc {scores.nf_acc:.2f} %"
    state.log.append(row)
    logger.info(line)
