"""The step of a flow's training: gradients, optimizer, averaged weights, and the lengths of the couplings' series."""

from __future__ import annotations

from torch import Tensor

from nfpi.config.training import TrainingConfig
from nfpi.flows.series import SeriesBounds
from nfpi.runtime.device import Device
from nfpi.runtime.divergence import NOT_FINITE
from nfpi.training.epoch_prior import FixedPrior, LearnedPrior
from nfpi.training.likelihood import NegativeLogLikelihood
from nfpi.training.loop import make_loss_error
from nfpi.training.optimizers import compute_learning_rate
from nfpi.training.state import TrainingState, require_finite


class TrainingStep:
    """The step of a training, set up on a device.

    Couplings compute e^S by a power series, whose length depends on a bound of the entries of S. If the steps are
    compiled or made on a GPU, the same bounds are held for many steps (:class:`nfpi.flows.series.SeriesBounds`).
    Otherwise every step computes the bounds from the weights, which is cheap on a CPU.

    Args:
        state: state of the training, updated in place by every step.
        config: training settings.
        device: device on which the flow is trained.
        steps: number of steps of the whole training.
        batch: number of images of a batch in this process; batches of other sizes are not compiled.
        compiler: backend of :func:`torch.compile`; None: not compiled.
    """

    def __init__(
        self,
        state: TrainingState,
        config: TrainingConfig,
        device: Device,
        steps: int,
        batch: int,
        compiler: str | None = None,
    ) -> None:
        self._state, self._config, self._device, self._steps = state, config, device, steps
        self._holds_bounds = compiler is not None or device.device.type != "cpu"
        held = (state.series_bounds, state.series_largest) if self._holds_bounds else (None, None)
        self._bounds = SeriesBounds(state.flow, *held)
        self._objective = NegativeLogLikelihood(state.flow, compiler, batch)
        self._likelihood, self._optimizer = device.setup(self._objective, state.optimizer)
        self._likelihood.train()
        self._record_bounds()

    def __call__(
        self,
        prior: FixedPrior | LearnedPrior,
        x: Tensor,
        labels: Tensor,
        weight: float = 1.0,
        progress: float = 0.0,
    ) -> Tensor:
        """Make a step of the flow, and of Gaussians that are learned along with it.

        Args:
            prior: Gaussians of the epoch.
            x: (B, C, H, W), inputs of the flow, see :meth:`nfpi.data.domain.Domain.to_flow`.
            labels: (B,).
            weight: factor of −log p(x | y) in the loss.
            progress: u ∈ [0, 1], the completed share of the training after `fit_after_epochs`, for learned Gaussians.

        Returns:
            −log p(x | y) before the step, in nats, (B,).

        Raises:
            TrainingDiverged: a coupling cannot sum its series.
        """
        state, config = self._state, self._config
        for group in self._optimizer.param_groups:
            group["lr"] = compute_learning_rate(config, state.step + 1, self._steps)
        with self._device.fixed_shapes():
            try:
                nll: Tensor = self._likelihood(prior.get_gaussians(), x, labels)
            except NOT_FINITE:  # a coupling cannot sum its series once its weights have diverged
                require_finite(state, config, len(state.log) + 1)
                raise make_loss_error(state, config, state.step + 1) from None
            self._optimizer.zero_grad()
            self._device.backward(prior.compute_loss(nll * weight))
        if config.gradient_clip:
            self._device.clip_gradients(self._likelihood, self._optimizer, config.gradient_clip)
        self._optimizer.step()
        prior.step(progress)
        state.step += 1
        state.average.update(state.step)
        self._bounds.watch()
        return nll.detach()

    def choose_bounds(self, epoch_begins: bool) -> None:
        """Choose bounds if an epoch begins or none are chosen yet; no-op if every step computes them."""
        if self._holds_bounds and (epoch_begins or self._bounds.held is None) and self._bounds.choose():
            self._objective.forget_graphs()
        self._record_bounds()

    def renew_exceeded_bounds(self) -> None:
        """Choose bounds again if the weights have exceeded any of them."""
        if self._bounds.renew_exceeded(self._state.step):
            self._objective.forget_graphs()
            self._record_bounds()

    def release_bounds(self) -> None:
        """Let every coupling compute its own bound again."""
        self._bounds.release()

    def count_products(self) -> list[int]:
        """Count the matrix-vector products of each coupling's series; empty if the weights have diverged."""
        return self._bounds.count_products()

    def _record_bounds(self) -> None:
        self._state.series_bounds, self._state.series_largest = self._bounds.held, self._bounds.largest
