"""The negative log-likelihood of a flow under class Gaussians."""

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


class NegativeLogLikelihood(nn.Module):
    """The negative log-likelihood as a module; optionally compiled.

    The compiled computation, from images to likelihood, is a single graph. The flow itself is not modified: compilation
    affects neither the names of its weights, nor its copies, nor its evaluation. With several processes, each compiles
    its own graph, and gradients are exchanged outside of it.

    Args:
        flow: f.
        backend: backend of :func:`torch.compile`; None: not compiled.
        batch: size of the batches that use the graph; others, such as the last of an epoch, run uncompiled, because
            a second graph would take as long to compile as the first.
    """

    def __init__(self, flow: nn.Module, backend: str | None = None, batch: int = 0) -> None:
        super().__init__()
        self.flow = flow
        self._batch = batch
        self._compiled = None
        if backend is not None:
            self._compiled = torch.compile(negative_log_likelihood, backend=backend, fullgraph=True, dynamic=False)

    def forward(self, prior: GaussianPrior, x: Tensor, labels: Tensor) -> Tensor:
        """Return −log p(x | y) of shape (B,); see :func:`negative_log_likelihood`."""
        if self._compiled is None or len(x) != self._batch:
            return negative_log_likelihood(self.flow, prior, x, labels)
        prior.precompute()
        likelihoods: Tensor = self._compiled(self.flow, prior, x, labels)
        return likelihoods

    def forget_graphs(self) -> None:
        """Drop all graphs, once a coupling sums another number of terms of e^S; the next batch compiles a new one."""
        if self._compiled is not None:
            torch.compiler.reset()
