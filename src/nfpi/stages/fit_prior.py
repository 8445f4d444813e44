"""The stage that fits the Gaussians of an initial state."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator

from nfpi.config.base import NonNegativeFloat
from nfpi.config.priors import PRIORS, PriorBlock, PriorConfig
from nfpi.results.recorded.csv_files import write_rows
from nfpi.runs import FIT, INITIAL_FILES, RESIDUALS, format_weight
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.stages.base import Stage
from nfpi.stages.needs import Needs
from nfpi.stages.planned import Planned, Wildcards
from nfpi.stages.train_flow import need_initial

logger = logging.getLogger(__name__)


def _check_is_fitted(prior: PriorBlock) -> PriorBlock:
    if PRIORS[prior.method].traits["learned"]:
        raise ValueError(f"expected a method that fits the Gaussians once, received {prior.method}")
    return prior


class FitPrior(Stage):
    """Fit the Gaussians of an initial state (Eqs. 5-7).

    Uses fixed-point iteration or another method. A fit that diverges is recorded as a result; the command succeeds.
    """

    command = "fit-prior"
    places = (FIT,)
    outputs = {"prior": INITIAL_FILES["prior"], "iterations": "fixed_point.csv"}
    product = "prior"
    inputs = {"initial": (INITIAL_FILES["prior"], INITIAL_FILES["statistics"])}
    blocks = {"prior": "priors.{prior}"}
    uses = ("prior",)

    initial: Path
    """folder of an initial state, with its statistics and Gaussians"""
    prior: Annotated[PriorConfig, AfterValidator(_check_is_fitted)] = PRIORS.validate({})
    """method of the prior and its settings"""
    weight: NonNegativeFloat
    """λ of Eq. 4"""

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether the run's Gaussians are fitted."""
        return planned.config.is_fitted(wildcards["prior"])

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the initial state."""
        return {"initial": [need_initial(planned, wildcards)]}

    def run(self) -> None:
        """Fit the Gaussians to the statistics of an initial state by the prior's method."""
        from nfpi.priors.files import load_prior, load_statistics, save_prior
        from nfpi.priors.registry import fit_prior

        initial, header = load_prior(self.initial / INITIAL_FILES["prior"])
        statistics = load_statistics(self.initial / INITIAL_FILES["statistics"])
        try:
            fitted = fit_prior(self.prior, statistics, initial, self.weight)
        except Diverged as fault:
            fault.context = {"seed": header.get("seed"), "prior": self.prior.model_dump(mode="json")}
            raise
        if "iterations" in fitted.record:
            found = fitted.record["iterations"], fitted.record["converged"]
            logger.info("λ = %s: %d iterations, converged: %s", format_weight(self.weight), *found)
        self._write_residuals(fitted.residuals)
        save_prior(self.get_path("prior"), fitted.prior, header | fitted.record)

    def record_divergence(self, fault: Diverged) -> None:
        """Write a record of the divergence, and the residuals of the fit, if it is the fit that diverged."""
        from nfpi.priors.fixed_point import FixedPointDiverged

        mark_diverged([self.get_path("prior")], fault)
        self._write_residuals(fault.residuals if isinstance(fault, FixedPointDiverged) else [])

    def _write_residuals(self, residuals: list[Any]) -> None:
        rows = [dict(zip(RESIDUALS, (index, *pair), strict=True)) for index, pair in enumerate(residuals, 1)]
        write_rows(self.get_path("iterations"), list(RESIDUALS), rows)
