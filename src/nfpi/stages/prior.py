"""The stage that fits the class Gaussians."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.settings import FixedPointPrior
from nfpi.config.base import NonNegativeFloat
from nfpi.stages.base import HeavyStage, write_rows

if TYPE_CHECKING:
    from nfpi.priors.fixed_point import FixedPointDiverged

logger = logging.getLogger(__name__)


class FitPrior(HeavyStage):
    """Fit the Gaussians by fixed-point iteration (Eqs. 5-7). A fit that diverges is a result and ends well."""

    statistics: Path
    """statistics.safetensors of a start"""
    initial: Path
    """prior.safetensors of the same start"""
    prior: FixedPointPrior = FixedPointPrior()
    weight: NonNegativeFloat
    """λ of Eq. 4"""
    output: Path
    """the fitted prior, a safetensors file"""
    iterations: Path
    """table of the residuals, an iteration a row (csv)"""

    def run(self) -> None:
        """Iterate to the fixed point."""
        from nfpi.runtime.files import written_together
        from nfpi.priors.fixed_point import FixedPointConfig, FixedPointDiverged, fit_fixed_point
        from nfpi.runtime.tensors import load_prior, load_statistics, save_prior

        settings = self.prior.model_dump(exclude={"method", "start"})
        initial, header = load_prior(self.initial)
        try:
            result = fit_fixed_point(
                load_statistics(self.statistics), FixedPointConfig(weight=self.weight, **settings), initial
            )
        except FixedPointDiverged as fault:
            self._write_residuals(fault.residuals)
            fault.context = {"seed": header["seed"], "prior": self.prior.model_dump()}
            raise
        if not result.converged:
            logger.warning("not converged after %d iterations: the last Gaussians are taken", result.iterations)
        logger.info("λ = %g: %d iterations, converged: %s", self.weight, result.iterations, result.converged)
        header |= {"weight": self.weight, "settings": self.prior.model_dump()}
        header |= {"iterations": result.iterations, "converged": result.converged}
        with written_together():
            self._write_residuals(result.residuals.tolist())
            save_prior(self.output, result.prior, header)

    def _write_residuals(self, residuals: list[Any]) -> None:
        rows = [
            {"iteration": index, "mean_residual": mean, "variance_residual": variance}
            for index, (mean, variance) in enumerate(residuals, 1)
        ]
        write_rows(self.iterations, ["iteration", "mean_residual", "variance_residual"], rows)

    def mark(self, fault: FixedPointDiverged) -> None:
        """The prior is « diverged »."""
        from nfpi.runtime.divergence import mark_tensors

        mark_tensors(self.output, fault)
