"""The likelihood that flows are trained by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nfpi.priors.gaussian import GaussianPrior


def negative_log_likelihood(flow: nn.Module, prior: GaussianPrior, x: Tensor, labels: Tensor) -> Tensor:
    """−log p(x | y) = −log N(f(x); μ_y, Σ_y) − log |det ∂f/∂x| (Eqs. 1 and 2), in nats.

    Args:
        flow: f.
        prior: on the device of x.
        x: (B, C, H, W) in [−1, 1].
        labels: (B,).

    Returns:
        (B,).
    """
    z, log_abs_det = flow(x)
    return -prior.log_prob_of(z, labels) - log_abs_det


class NegativeLogLikelihood(nn.Module):
    """The negative log-likelihood as a module, which a device wraps and which may be compiled.

    From images to likelihood it is one graph. The flow itself stays as it is: the names of its weights, its copies and
    its evaluation know nothing of the compiler. Where several processes train, each compiles what it computes between
    the exchanges of gradients.

    Args:
        flow: f.
        backend: of :func:`torch.compile`; None: not compiled.
        batch: size of the batches that are computed by the graph. Others, such as the last of an epoch, are computed
            without, for which a second graph would take as long to compile.
    """

    def __init__(self, flow: nn.Module, backend: str | None = None, batch: int = 0) -> None:
        super().__init__()
        self.flow = flow
        self._batch = batch
        self._compiled = None
        if backend is not None:
            self._compiled = torch.compile(negative_log_likelihood, backend=backend, fullgraph=True, dynamic=False)

    def forward(self, prior: GaussianPrior, x: Tensor, labels: Tensor) -> Tensor:
        """−log p(x | y) of shape (B,); see :func:`negative_log_likelihood`."""
        if self._compiled is None or len(x) != self._batch:
            return negative_log_likelihood(self.flow, prior, x, labels)
        prior.precompute()
        likelihoods: Tensor = self._compiled(self.flow, prior, x, labels)
        return likelihoods

    def forget_graphs(self) -> None:
        """Drop the graphs of series of another length; the next batch compiles a new one."""
        if self._compiled is not None:
            torch.compiler.reset()
