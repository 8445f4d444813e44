"""Training of the flow: its start, the statistics of its latents, and the epochs under a prior, fixed or learned.

A run is cut in two so that every λ shares its beginning: :func:`start_training` initialises the flow and the prior and
trains the first epochs, :func:`continue_training` goes on from what it left, under the fitted prior or one that is
learned along with the flow. What is random depends on the run's seed, the epoch and the batch only, so on a CPU two
parts of a run equal the whole, bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from nfpi.runtime.checkpoints import CheckpointRing, Content, kept_while_running
from nfpi.config.settings import FlowConfig, TrainingConfig
from nfpi.config.base import Start
from nfpi.evaluation import check_fit, evaluate_flow
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.runtime.signals import Interruption
from nfpi.training.likelihood import negative_log_likelihood
from nfpi.linalg import precise_device
from nfpi.priors.statistics import ClassStatistics
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.gradient_descent import GradientDescentConfig
from nfpi.runtime.randomness import derive_seed, generator_for
from nfpi.training.batches import TrainingData, first_images, latent_statistics
from nfpi.training.epoch_prior import FixedGaussians, LearnedGaussians, gaussians_of_epoch, learning_progress
from nfpi.training.state import LogRow, TrainingDiverged, TrainingState, diverged, new_learner, require_finite

__all__ = [
    "TrainingData",
    "TrainingDiverged",
    "TrainingStart",
    "TrainingState",
    "continue_training",
    "initial_prior",
    "latent_statistics",
    "start_training",
]

logger = logging.getLogger(__name__)

_STEPS_BETWEEN_CHECKS = 20


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


def start_training(
    data: TrainingData,
    flow_config: FlowConfig,
    start: Start,
    seed: int,
    fabric: Fabric,
    ring: CheckpointRing | None = None,
) -> TrainingStart:
    """Initialise the flow on data, set the initial Gaussians, and train the epochs before the fit.

    Args:
        data: images and knobs.
        flow_config: architecture.
        start: class means with class variances (`data`) or with identity covariances (`identity`), or means drawn
            from N(0, I) with identity covariances (`random`).
        seed: of the run.
        fabric: devices and precision.
        ring: where the state is kept meanwhile, and taken up where a run that was cut left it; none: nowhere.

    Raises:
        TrainingDiverged: the loss is not finite.
        Interrupted: a signal asked to stop; the ring has the state.
    """
    resumed, statistics = _resumed(ring, data), None
    if resumed is not None:
        state, tensors = resumed
        prior = GaussianPrior(tensors["prior.mean"], tensors["prior.variance"]).to(precise_device(data.device))
    else:
        torch.manual_seed(derive_seed(seed, "weights"))
        flow = MatrixExponentialFlow(data.train.shape, **flow_config.model_dump()).to(data.device)
        flow.initialize(first_images(data, seed))
        statistics = latent_statistics(flow, data, seed)
        prior = initial_prior(statistics, start, seed)
        state = TrainingState.new(flow, data.config, seed, data.steps_per_epoch)
    if data.config.fit_after_epochs or statistics is None:
        state = _train(state, prior, data, data.config.fit_after_epochs, fabric, ring, _tensors_of(prior))
        statistics = latent_statistics(state.flow, data, seed)
    return TrainingStart(state, prior, statistics)


def continue_training(
    state: TrainingState,
    prior: GaussianPrior,
    data: TrainingData,
    fabric: Fabric,
    ring: CheckpointRing | None = None,
    learned: GradientDescentConfig | None = None,
) -> TrainingState:
    """Train the remaining epochs under a prior that stays as it is, or is learned from `fit_after_epochs` on.

    A prior that is learned every epoch makes its step before the epoch's first batch, from one pass over the training
    images under the weights as they are then (not the averaged ones), and the epoch is trained under the outcome. One
    that is learned every step makes its step with the flow's, on −log p(x | y) averaged over the batch + λ L_KLD / K.
    That is Eq. 4 over K where classes are of one size: its likelihood is a sum over classes. Learned Gaussians are not
    averaged over steps; they are what the validation is under, and `state.learner.prior` in the end.

    Args:
        state: from :func:`start_training`.
        prior: K Gaussians in D = C·H·W dimensions; initial ones if they are learned.
        data: images and knobs.
        fabric: devices and precision.
        ring: where the state is kept meanwhile, and taken up where a run that was cut left it; none: nowhere.
        learned: how the Gaussians are learned; none: they are not.

    Raises:
        ValueError: state, prior, images and settings do not fit together.
        TrainingDiverged: the loss or a learned Gaussian is not finite.
        Interrupted: a signal asked to stop; the ring has the state.
    """
    check_fit(state.flow, prior, data.train)
    if state.step != len(state.log) * data.steps_per_epoch:
        raise ValueError(
            f"state: expected {len(state.log)} epochs of {data.steps_per_epoch} steps, received step {state.step}: "
            "was it trained on other images, or with another batch_size?"
        )
    resumed = _resumed(ring, data)
    if resumed is not None:
        state = resumed[0]
    if state.learner is None and learned is not None:
        state.learner = new_learner(prior, learned, data.device)
    found = state.learner.config if state.learner is not None else None
    if found != learned:
        raise ValueError(f"state: expected Gaussians learned by {learned}, received {found}")
    return _train(state, prior, data, data.config.epochs, fabric, ring)


def initial_prior(statistics: ClassStatistics, start: Start, seed: int) -> GaussianPrior:
    """Gaussians at the class means, with the class variances (`data`) or with identity covariances (`identity`).

    Or with means drawn from N(0, I), the run's own, and identity covariances (`random`).
    """
    statistics.check()
    mean = statistics.mean
    if start == "random":
        generator = generator_for("cpu", seed, "random means")
        mean = torch.randn(mean.shape, generator=generator, dtype=mean.dtype).to(mean.device)
    return GaussianPrior(mean, statistics.variance if start == "data" else torch.ones_like(mean))


def learning_rate(config: TrainingConfig, step: int) -> float:
    """That of the n-th step, counted from 1: a linear warm-up, then constant."""
    return config.learning_rate * min(1.0, step / max(1, config.warmup_steps))


def _resumed(ring: CheckpointRing | None, data: TrainingData) -> tuple[TrainingState, dict[str, Tensor]] | None:
    """The state that the ring has, and the tensors that it is among."""
    with data.processes.first_before_others():  # it removes what is damaged
        found = ring.load() if ring is not None else None
    if ring is None or found is None:
        return None
    tensors, header = found
    state = TrainingState.of_content(ring.path, tensors, header, data.config, data.steps_per_epoch, data.device)
    return state, tensors


def _tensors_of(prior: GaussianPrior) -> dict[str, Tensor]:
    return {"prior.mean": prior.mean, "prior.variance": prior.variance}


def _train(
    state: TrainingState,
    prior: GaussianPrior,
    data: TrainingData,
    until_epoch: int,
    fabric: Fabric,
    ring: CheckpointRing | None = None,
    kept_along: Mapping[str, Tensor] | None = None,
) -> TrainingState:
    """Train from the state's step to the end of an epoch, counted from the beginning of the run.

    An epoch is over when it has its row in the log; a state may have all its steps and not yet that.
    """
    config, steps_per_epoch, processes = data.config, data.steps_per_epoch, data.processes
    flow, optimizer = fabric.setup(state.flow, state.optimizer)
    flow.train()
    epoch_began = time.monotonic()
    progress = tqdm(
        total=until_epoch * steps_per_epoch,
        initial=state.step,
        desc="flow",
        unit="step",
        leave=False,
        disable=None,
    )

    def content() -> Content:
        require_finite(state, config, len(state.log) + 1)
        tensors, header = state.content()
        return state.step, {**tensors, **(kept_along or {})}, header

    try:
        with kept_while_running(ring if processes.first else None, content) as keeper:
            while len(state.log) < until_epoch:
                epoch = len(state.log)
                gaussians = gaussians_of_epoch(state, prior, data, keeper.interruption)
                for x, labels in data.stream(state.seed, epoch, state.step - epoch * steps_per_epoch):
                    for group in optimizer.param_groups:
                        group["lr"] = learning_rate(config, state.step + 1)
                    try:
                        nll = negative_log_likelihood(flow, gaussians.of_batch(), x, labels)
                    except ArithmeticError:  # the series of a coupling is endless once its weights ran away
                        require_finite(state, config, epoch + 1)
                        raise diverged(state.step + 1, state.seed, config) from None
                    # gradients of the processes are averaged: so each image of the batch has the same weight
                    share = len(labels) / data.images_of_batch(state.step % steps_per_epoch)
                    optimizer.zero_grad()
                    fabric.backward(gaussians.loss(nll * (share * processes.count)))
                    if config.gradient_clip:
                        fabric.clip_gradients(flow, optimizer, max_norm=config.gradient_clip)
                    optimizer.step()
                    gaussians.step(learning_progress(state, data))
                    state.step += 1
                    state.average.update(state.flow, step=state.step)
                    state.epoch_nll += processes.total(nll.detach().sum())
                    progress.update()
                    if state.step % _STEPS_BETWEEN_CHECKS == 0 or state.step % steps_per_epoch == 0:
                        require_finite(state, config, epoch + 1)
                        progress.set_postfix_str(f"epoch {epoch + 1}", refresh=False)
                    keeper.after_step()
                _close_epoch(state, gaussians, data, time.monotonic() - epoch_began, keeper.interruption)
                keeper.after_step(epoch_ended=True)
                epoch_began = time.monotonic()
    except ArithmeticError as fault:
        known = fault if isinstance(fault, TrainingDiverged) else diverged(state.step, state.seed, config)
        kept = f"; last good checkpoint: {ring or 'none'}" if processes.first else ""
        raise TrainingDiverged(f"{known}{kept}") from None
    finally:
        progress.close()
    return state


def _close_epoch(
    state: TrainingState,
    gaussians: FixedGaussians | LearnedGaussians,
    data: TrainingData,
    seconds: float,
    interruption: Interruption,
) -> None:
    """Add the epoch's row to the log; evaluate on the validation split where it is due.

    It may be stopped at once while it evaluates; nothing is changed before.
    """
    epoch = len(state.log) + 1
    config, dimensions = data.config, torch.Size(data.train.shape).numel()
    mean_nll = state.epoch_nll.cpu() / len(data.train)
    prior, objective = gaussians.in_the_end(mean_nll.item())
    row: LogRow = {
        "epoch": epoch,
        "step": state.step,
        "learning_rate": learning_rate(config, state.step),
        "train_bits_per_dim": float(data.domain.bits_per_dim(mean_nll, dimensions)),
        "prior_loss": objective,
        "validation_bits_per_dim": None,
        "validation_nf_acc": None,
        "seconds": round(seconds, 3),
    }
    line = f"epoch {epoch}/{config.epochs}: train {row['train_bits_per_dim']:.4f} bits/dim, {seconds:.1f} s"
    if objective is not None:
        line += f"; prior {objective:.6g}"
    if data.processes.first and (epoch % config.evaluate_every == 0 or epoch == config.epochs):
        with interruption.at_once():
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
    state.epoch_nll.zero_()
    state.log.append(row)
    logger.info(line)
