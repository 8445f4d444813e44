"""Checks of a preset's flow: the device against the CPU in float64, and the length of its couplings' series."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from nfpi.checks.report import Line
from nfpi.checks.subject import Subject, in_mode
from nfpi.flows.coupling import SeriesCoupling
from nfpi.flows.image_flow import ImageFlow
from nfpi.flows.series import SeriesBounds
from nfpi.linalg import series_plan, truncation_error
from nfpi.training.loop import continue_training

_TOLERANCE = 1e-4
"""Largest accepted relative error."""
_IMAGES = 4
"""Number of images whose results are compared with float64."""
_STEPS, _SECONDS_ON_CPU = 50, 15.0
"""Largest number of training steps, and about the largest time (s) that they take on a CPU."""


def check_flow_precision(subject: Subject) -> Iterator[Line]:
    """Compare z, the log-determinant, gradients and the inverse with those on the CPU in float64."""
    trainer = subject.trained
    x, _ = trainer.make_batch(_IMAGES)
    errors = compute_flow_errors(trainer.state.flow, x)
    text = ", ".join(f"{name} {error:.1g}" for name, error in errors.items())
    if all(error < _TOLERANCE for error in errors.values()):  # false for NaN
        yield Line("flow", "ok", f"{subject.main.name} in float32 against float64 on the CPU: {text}")
    else:
        yield Line(
            "flow",
            "FAILED",
            f"{subject.main.name} in float32 against float64 on the CPU: {text}, expected less than {_TOLERANCE:g}: "
            "try another version of torch or of the driver, or fewer layers",
        )


def compute_flow_errors(flow: ImageFlow, x: Tensor) -> dict[str, float]:
    """Compute relative errors of a flow in float32 on its device.

    Args:
        flow: flow on its device.
        x: (B, C, H, W), on that device.

    Returns:
        The errors by name: of z and of the log-determinant, divided by the largest absolute value or 1, whichever is
        larger; of the gradient of ‖z‖²/2 − log |det| with respect to all parameters, divided by its norm; and the
        absolute error of inverse(z).
    """
    exact = copy.deepcopy(flow).cpu().double()
    z, log_abs_det, gradient = _evaluate_with_gradient(flow, x)
    expected_z, expected_log, expected_gradient = _evaluate_with_gradient(exact, x.cpu().double())
    with torch.no_grad(), in_mode(flow, training=False):
        back, _ = flow.inverse(z.to(x))
    return {
        "z": _compute_relative_error(z, expected_z),
        "log-determinant": _compute_relative_error(log_abs_det, expected_log),
        "gradients": ((gradient - expected_gradient).norm() / expected_gradient.norm()).item(),
        "inverse": (back - x).abs().max().item(),
    }


def _evaluate_with_gradient(flow: ImageFlow, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return z, log |det| and the gradient of all parameters, on the CPU in float64."""
    parameters = [parameter for parameter in flow.parameters() if parameter.requires_grad]
    with in_mode(flow, training=False), torch.enable_grad():
        z, log_abs_det = flow(x)
        loss = z.flatten(1).square().sum(1) / 2 - log_abs_det
        gradients = torch.autograd.grad(loss.mean(), parameters, allow_unused=True)
    gradient = torch.cat([part.flatten() for part in gradients if part is not None])
    return z.detach().cpu().double(), log_abs_det.detach().cpu().double(), gradient.cpu().double()


def _compute_relative_error(found: Tensor, expected: Tensor) -> float:
    return (found - expected).abs().max().item() / max(1.0, expected.abs().max().item())


def check_bounds(subject: Subject) -> Iterator[Line]:
    """Train a few steps; check that every series had enough terms, and that its matrix products did not double."""
    trainer = subject.trained
    began = time.monotonic()
    trainer.step(*trainer.make_batch())
    seconds = time.monotonic() - began
    steps = _STEPS if subject.on_gpu else max(2, min(_STEPS, int(_SECONDS_ON_CPU / seconds)))
    state = replace(trainer.state, step=0)
    data, before = trainer.make_data(steps), SeriesBounds(state.flow).count_products()
    with SeriesErrors(state.flow) as errors:
        state = continue_training(state, trainer.prior, data, trainer.device, progress=False)
    trainer.discard_step()
    after, bits = SeriesBounds(state.flow).count_products(), state.log[-1]["train_bits_per_dim"]
    text = f"{steps} steps of {subject.main.name} at a batch of {data.config.batch_size}, {bits:.3f} bits/dim"
    if not errors.calls:
        yield Line("series", "ok", f"{text}; no coupling of this flow uses a series")
        return
    remedy = (
        f"set a smaller training.learning_rate (now {trainer.config.learning_rate:g}) or a longer warmup_steps "
        f"(now {trainer.config.warmup_steps})"
    )
    if not after:
        yield Line(
            "series",
            "FAILED",
            f"{text}; an exponent of a coupling became too large for its series: {remedy}",
        )
        return
    text += (
        f"; {_format_range(before)} matrix products per coupling at the beginning, {_format_range(after)} at the end"
    )
    if errors.largest > _TOLERANCE:
        exceeded = f"a series had too few terms, with a relative error of up to {errors.largest:.1g}"
        yield Line("series", "FAILED", f"{text}; {exceeded}: {remedy}")
    elif any(now >= 2 * then for then, now in zip(before, after, strict=True)):
        yield Line("series", "slow", f"{text}; a coupling needs at least twice as many products now: {remedy}")
    elif errors.largest:
        yield Line("series", "ok", f"{text}; truncated with relative errors of at most {errors.largest:.1g}")
    else:
        yield Line("series", "ok", f"{text}; every series was long enough")


def _format_range(lengths: list[int]) -> str:
    """Return the smallest and the largest number of products, or the only one."""
    return " to ".join(map(str, sorted({min(lengths), max(lengths)})))


class SeriesErrors:
    """Context that records the truncation errors of the series of a flow's couplings.

    Attributes:
        largest: largest relative truncation error (an upper bound) of a series with too few terms; 0 if there is none.
            A series of S has too few if its coupling used a bound of |S_ij| below that of the current weights.
        calls: number of series whose length was chosen.
    """

    def __init__(self, flow: torch.nn.Module) -> None:
        self._couplings = [module for module in flow.modules() if isinstance(module, SeriesCoupling)]
        self.largest = 0.0
        self.calls = 0

    def __enter__(self) -> SeriesErrors:
        for coupling in self._couplings:
            coupling.bound_entries = self._wrap_bound_entries(coupling)  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        for coupling in self._couplings:
            del coupling.bound_entries

    def _wrap_bound_entries(self, coupling: SeriesCoupling) -> Callable[[], float]:
        determine = coupling.bound_entries

        def record() -> float:
            used = determine()
            true = (coupling.rescale.abs() + coupling.reshift.abs()).item()
            if true > used:
                terms, parts = series_plan(coupling.bound_series_norm(used), coupling.rescale.dtype)
                self.largest = max(self.largest, truncation_error(coupling.bound_series_norm(true), terms, parts))
            self.calls += 1
            return used

        return record
