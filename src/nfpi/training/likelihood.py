"""The likelihood that flows are trained by."""

from __future__ import annotations

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
