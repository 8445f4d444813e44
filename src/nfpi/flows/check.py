"""Checks of a backbone: shapes, inverse and log-determinants."""

from __future__ import annotations

import torch
from torch import Tensor

from nfpi.flows.bijection import ImageFlow, evaluating
from nfpi.runtime.faults import format_error


class FlowError(ValueError):
    """A backbone has wrong shapes, a wrong inverse or wrong log-determinants."""


def check_flow(flow: ImageFlow, x: Tensor, *, jacobian: bool = True, tolerance: float | None = None) -> None:
    """Check the shapes, the inverse and the log-determinants of a backbone on a few images.

    z and the log-determinants must have the right shapes and be finite, `inverse` must return the images and the
    negative log-determinants, and the log-determinants must equal those of autograd's Jacobian. The flow is put into
    evaluation mode for the check and is not changed.

    Args:
        flow: the backbone.
        x: (B, C, H, W) in [−1, 1], with the dtype and the device of the parameters. Use at least two images, or a
            log-determinant of the wrong shape may go unnoticed.
        jacobian: whether to compare the log-determinants with those of the Jacobian, which takes a backward pass for
            each of the D dimensions and B·D² numbers of memory.
        tolerance: largest accepted error, absolute, or relative to the largest expected number if that number is above
            1; None: 1e-6 in float64, else 0.02.

    Raises:
        FlowError: a check fails.
        ValueError: the images are not of the flow's shape.
    """
    flow.check_images(x)
    if tolerance is None:
        tolerance = 1e-6 if x.dtype == torch.float64 else 0.02
    with evaluating(flow):
        _check_directions(flow, x, tolerance)
        if jacobian:
            _check_jacobian(flow, x, tolerance)


@torch.no_grad()
def _check_directions(flow: ImageFlow, x: Tensor, tolerance: float) -> None:
    z, log_abs_det = _apply(flow, "forward", x)
    found, inverse_log_abs_det = _apply(flow, "inverse", z)
    if not (error := _compute_error(found, x)) <= tolerance:
        raise FlowError(
            f"{_format_name(flow)}: expected inverse(z) = x, received images that differ by up to {error:.3g}"
        )
    if not (error := _compute_error(inverse_log_abs_det, -log_abs_det)) <= tolerance:
        worst = int((inverse_log_abs_det + log_abs_det).abs().argmax())
        raise FlowError(
            f"{_format_name(flow)}: expected the log-determinant of inverse to be minus that of forward, received "
            f"{log_abs_det[worst].item():.6g} from forward and {inverse_log_abs_det[worst].item():.6g} from inverse "
            f"for image {worst} (error {error:.3g})"
        )


def _check_jacobian(flow: ImageFlow, x: Tensor, tolerance: float) -> None:
    with torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        z, found = flow(x)
        try:
            rows = [torch.autograd.grad(z_d.sum(), x, retain_graph=True)[0] for z_d in z.flatten(1).unbind(1)]
        except RuntimeError as fault:  # z has no gradient, or none with respect to x
            reason = format_error(fault)
            raise FlowError(
                f"{_format_name(flow)}: expected forward to be differentiable with respect to the images: {reason}"
            ) from fault
    jacobian = torch.stack([row.flatten(1) for row in rows], 1)
    expected = torch.linalg.slogdet(jacobian.double()).logabsdet
    found = found.detach().double()
    if not (error := _compute_error(found, expected)) <= tolerance:
        worst = int((found - expected).abs().argmax())
        raise FlowError(
            f"{_format_name(flow)}: expected the log-determinant of the Jacobian, {expected[worst].item():.6g} for "
            f"image {worst}, received {found[worst].item():.6g} (error {error:.3g})"
        )


def _apply(flow: ImageFlow, direction: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Apply one direction and check the types and shapes of its results."""
    result = getattr(flow, direction)(x)
    returned = "latents" if direction == "forward" else "images"
    y, log_abs_det = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    if not isinstance(y, Tensor) or not isinstance(log_abs_det, Tensor):
        raise FlowError(
            f"{_format_name(flow)}: expected {direction} to return two tensors, {returned} and log-determinants, "
            f"received {type(result).__name__}"
        )
    for what, value, shape in ((returned, y, x.shape), ("log-determinants", log_abs_det, x.shape[:1])):
        if value.shape != shape:
            raise FlowError(
                f"{_format_name(flow)}: expected {direction} to return {what} of shape {tuple(shape)}, received "
                f"{tuple(value.shape)}"
            )
        if not value.isfinite().all():
            raise FlowError(
                f"{_format_name(flow)}: expected {direction} to return finite {what}, received NaN or infinity"
            )
    return y, log_abs_det


def _compute_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest expected number if that is above 1."""
    return (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())


def _format_name(flow: ImageFlow) -> str:
    return f"flow '{flow.kind}'" if flow.kind else type(flow).__name__
