"""Outcomes of fits of the class Gaussians, as cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nfpi.config.priors import FixedPointConfig
from nfpi.priors.fixed_point import FixedPointDiverged, fit_fixed_point
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics


def fit_with_outcome(
    statistics: ClassStatistics,
    config: FixedPointConfig,
    initial: GaussianPrior | None,
    classes: Sequence[str] | None = None,
) -> tuple[dict[str, Any], GaussianPrior | None]:
    """Fit class Gaussians by fixed-point iteration, and describe the outcome.

    Args:
        statistics: statistics of latents, K classes in D dimensions.
        config: λ and the settings of the iteration.
        initial: initial Gaussians; None: the class statistics.
        classes: names of the K classes; None: their indices.

    Returns:
        The cells `lambda`, `outcome` (converged, not_converged, or diverged), `iterations` and, if the fit diverged,
        the `quantity` and `class` that failed first; and the Gaussians, or None if the fit diverged.
    """
    cells: dict[str, Any] = {"lambda": config.weight}
    try:
        result = fit_fixed_point(statistics, config, initial)
    except FixedPointDiverged as fault:
        name = classes[fault.class_index] if classes else str(fault.class_index)
        cells |= {"outcome": "diverged", "iterations": fault.iteration, "quantity": fault.quantity, "class": name}
        return cells, None
    outcome = "converged" if result.converged else "not_converged"
    return {**cells, "outcome": outcome, "iterations": result.iterations}, result.prior
