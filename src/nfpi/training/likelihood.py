"""The loss of a flow under class Gaussians: the negative log-likelihood, and the cross-entropy of the classes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.priors.gaussian import GaussianPrior

logger = logging.getLogger(__name__)


def negative_log_likelihood(flow: Callable[[Tensor], Any], prior: GaussianPrior, x: Tensor, labels: Tensor) -> Tensor:
    """Return −log p(x | y) = −log N(f(x); μ_y, Σ_y) − log |det ∂f/∂x| (Eqs. 1 and 2), in nats.

    Args:
        flow: f, which returns f(x) and log |det ∂f/∂x|.
        prior: class Gaussians, on the device of x.
        x: inputs of the flow, (B, C, H, W), see :meth:`nfpi.data.domain.Domain.to_flow`.
        labels: class of each image, (B,).

    Returns:
        (B,).
    """
    z: Tensor
    log_abs_det: Tensor
    z, log_abs_det = flow(x)
    return -prior.log_prob_of(z, labels) - log_abs_det


def weigh_posterior(
    flow: Callable[[Tensor], Any], prior: GaussianPrior, x: Tensor, labels: Tensor, posterior_weight: float
) -> Tensor:
    """Return −log p(x | y), and −log p(x | y) − γ log p(y | x) under equal class frequencies, in nats, (2, B).

    With γ > 0, the flow is trained as a classifier, too (Ardizzone et al., 2020, "Training normalizing flows with the
    information bottleneck for competitive generative classification").

    Args:
        flow, prior, x, labels: as of :func:`negative_log_likelihood`.
        posterior_weight: γ.
    """
    z, log_abs_det = flow(x)
    nll = -prior.log_prob_of(z, labels) - log_abs_det
    posterior = prior.log_prob(z).log_softmax(1).gather(1, labels[:, None]).squeeze(1)
    return torch.stack([nll, nll - posterior_weight * posterior.to(nll)])


class NegativeLogLikelihood(nn.Module):
    """The negative log-likelihood and the loss as a module; optionally compiled.

    The compiled computation, from images to likelihood, is a single graph. The flow itself is not modified: compilation
    affects neither the names of its weights, nor its copies, nor its evaluation. With several processes, each compiles
    its own graph, and gradients are exchanged outside of it.

    Args:
        flow: f.
        backend: backend of :func:`torch.compile`; None: not compiled.
        batch: size of the batches that use the graph; others, such as the last of an epoch, run uncompiled, because
            a second graph would take as long to compile as the first.
        posterior_weight: γ of :func:`weigh_posterior`.
    """

    def __init__(
        self, flow: nn.Module, backend: str | None = None, batch: int = 0, posterior_weight: float = 0.0
    ) -> None:
        super().__init__()
        self.flow = flow
        self._batch = batch
        self._posterior_weight = posterior_weight
        self._compiled = None
        if backend is not None:
            self._compiled = torch.compile(self._compute, backend=backend, fullgraph=True, dynamic=False)

    def forward(self, prior: GaussianPrior, x: Tensor, labels: Tensor) -> Tensor:
        """Return −log p(x | y) and the loss of each image, (2, B); the latter is the former if γ = 0."""
        if self._compiled is None or len(x) != self._batch:
            return self._compute(self.flow, prior, x, labels)
        prior.precompute()
        losses: Tensor = self._compiled(self.flow, prior, x, labels)
        return losses

    def _compute(self, flow: nn.Module, prior: GaussianPrior, x: Tensor, labels: Tensor) -> Tensor:
        if self._posterior_weight:
            return weigh_posterior(flow, prior, x, labels, self._posterior_weight)
        nll = negative_log_likelihood(flow, prior, x, labels)
        return torch.stack([nll, nll])

    def forget_graphs(self) -> None:
        """Drop all graphs, once a coupling sums another number of terms of e^S; the next batch compiles a new one."""
        if self._compiled is not None:
            torch.compiler.reset()
