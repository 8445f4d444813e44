"""Bounds that determine the length of the couplings' series, kept on the host over many training steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nfpi.flows.coupling import SeriesCoupling
from nfpi.linalg import series_plan, truncation_error

logger = logging.getLogger(__name__)

_HEADROOM = 1.15
"""Smallest ratio of a newly chosen bound to the bound of the current weights."""
_MARGIN = 1.05
"""Ratio of a held bound to the bound of the current weights below which new bounds are chosen."""
_SMALLEST = 2.0**-4
_WORTH_A_WARNING = 1e-4


class SeriesBounds:
    """Bounds of |S_ij| that a flow's couplings hold during training, so that the lengths of their series rarely change.

    A coupling computes e^S of C₂×C₂ matrices S by a power series, whose length depends on a bound of |S_ij| or, if S
    has a low rank, on such a bound of its factors. The coupling's current weights give the bound |rescale| + |reshift|.
    The held bound is at least 15 % larger than this current bound, rounded up to 2^k/C₂ or 1.5 · 2^k/C₂. At the
    beginning of an epoch, all are chosen again if one is less than 5 % above the current bound, or at least twice the
    value that would be chosen now. Thus few graphs are ever compiled. For a flow without :class:`SeriesCoupling`
    layers, all methods are no-ops.

    After every step, the current bounds are recorded on the device, with six small operations and no synchronisation;
    the host reads the record every 20 steps and, if a held bound was exceeded, chooses all again. Until then the
    series are too short: if the norm is r times the one for which m terms were chosen, their error grows from eps/4 by
    a factor of about r^{m+1}: for m = 14, to at most 9e-7 for r = 1.25 and 1.2e-3 for r = 2. As gradient noise is far
    larger, these steps are kept and their error is logged. Repeating them would need a copy of an older state on the
    device. A bound so large that it cannot be exceeded within these 20 steps, at the usual learning rate, would need
    twice as many terms.

    Args:
        flow: flow whose couplings use the held bounds in training mode, until :meth:`release`.
        held: held bounds of an interrupted training, one per coupling; None: no bounds are held yet.
        largest: record of the interrupted training; None: an empty record.

    Attributes:
        held: held bounds, one per coupling; None: none are held.
        largest: record, (number of couplings,): largest current bounds since the last choice, updated in place;
            None: no bounds are held.
    """

    def __init__(self, flow: nn.Module, held: Sequence[float] | None = None, largest: Tensor | None = None) -> None:
        self._couplings = [module for module in flow.modules() if isinstance(module, SeriesCoupling)]
        self.largest: Tensor | None = None
        self._limit: Tensor | None = None
        if held is not None and len(held) != len(self._couplings):
            raise ValueError(f"bounds: expected {len(self._couplings)}, one per coupling, received {len(held)}")
        self.held: list[float] | None = None
        if held is not None:
            self._hold(list(held))
            if self.largest is not None and largest is not None:
                self.largest.copy_(largest)

    @torch.no_grad()
    def _compute_bounds(self) -> Tensor:
        rescale = torch.cat([coupling.rescale for coupling in self._couplings])
        return rescale.abs() + torch.cat([coupling.reshift for coupling in self._couplings]).abs()

    def _hold(self, held: list[float]) -> None:
        self.held = held
        for coupling, bound in zip(self._couplings, held, strict=True):
            coupling.held_bound = bound
        if self._couplings:
            self._limit = torch.tensor(held, device=self._couplings[0].rescale.device)
            self.largest = torch.zeros_like(self._limit)

    def choose(self) -> bool:
        """Choose new bounds if the held ones do not suit the current weights; return whether they change.

        Raises:
            FloatingPointError: a bound is not finite, or too large for a series (:func:`nfpi.linalg.taylor_plan`).
        """
        if not self._couplings:
            return False
        bounds = self._compute_bounds().tolist()
        chosen = [_choose_bound(coupling, bound) for coupling, bound in zip(self._couplings, bounds, strict=True)]
        if self.held is not None and all(
            _MARGIN * bound <= held < 2 * new for bound, held, new in zip(bounds, self.held, chosen, strict=True)
        ):
            return False
        self._hold(chosen)
        return True

    def watch(self) -> None:
        """Update the record with the current bounds after a step, on the device."""
        if self.largest is not None:
            torch.maximum(self.largest, self._compute_bounds(), out=self.largest)

    def renew_exceeded(self, step: int) -> bool:
        """Choose new bounds if the weights have exceeded one since the last choice; return whether they change.

        Args:
            step: number of the last step, for the log.

        Raises:
            FloatingPointError: a bound is not finite, or too large for a series (:func:`nfpi.linalg.taylor_plan`).
        """
        if self.largest is None or self._limit is None or (self.largest <= self._limit).all():  # False for NaN
            return False
        error = max(map(_estimate_error, self._couplings, self.largest.tolist(), self.held or ()))
        severity = logging.WARNING if error > _WORTH_A_WARNING else logging.INFO
        logger.log(
            severity,
            "step %d: weights exceeded bounds of the couplings' series, with errors up to %.1g in the last steps",
            step,
            error,
        )
        self.largest.zero_()
        return self.choose()

    def release(self) -> None:
        """Let every coupling compute its own bound again."""
        for coupling in self._couplings:
            coupling.held_bound = None

    def count_products(self) -> list[int]:
        """Count the matrix-vector products of each coupling's series by its bound; empty if the weights have diverged.

        Without held bounds, the bounds are those of the current weights, and the series are shorter.
        """
        bounds = self.held if self.held is not None else (self._compute_bounds().tolist() if self._couplings else [])
        try:
            return [
                math.prod(_plan_series(coupling, bound))
                for coupling, bound in zip(self._couplings, bounds, strict=True)
            ]
        except FloatingPointError:
            return []


def _plan_series(coupling: SeriesCoupling, bound: float) -> tuple[int, int]:
    """Return the degree of the polynomial of a step, and the number of steps."""
    return series_plan(coupling.bound_series_norm(bound), coupling.rescale.dtype)


def _choose_bound(coupling: SeriesCoupling, bound: float) -> float:
    _plan_series(coupling, bound)  # raises if the bound is not finite
    channels = coupling.split[1]
    wanted = max(_SMALLEST, _HEADROOM * channels * bound)
    octave = 2.0 ** math.floor(math.log2(wanted))
    rounded = next(octave * factor for factor in (1.0, 1.5, 2.0) if octave * factor >= wanted)
    # slightly smaller: e^S is applied in ⌈norm / 2⌉ steps, so a rounding error above an even norm would add one
    held = rounded * (1 - 1e-9) / channels
    _plan_series(coupling, held)  # raises if no series is long enough
    return held


def _estimate_error(coupling: SeriesCoupling, bound: float, held: float) -> float:
    return truncation_error(coupling.bound_series_norm(bound), *_plan_series(coupling, held))
