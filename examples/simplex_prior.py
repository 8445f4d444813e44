"""A prior of one's own: class means on a regular simplex, without λ: `priors: {simplex: {method: simplex}}`."""

import torch
from pydantic import PositiveFloat

from nfpi.config.base import Settings
from nfpi.priors import ClassStatistics, GaussianPrior, register_prior


class Simplex(Settings):
    """Settings of a simplex of means."""

    radius: PositiveFloat = 10.0
    """distance of every mean from the mean of all"""


@register_prior("simplex", Simplex, uses_weight=False)
def fit_simplex(statistics: ClassStatistics, initial: GaussianPrior, weight: float, settings: Simplex) -> GaussianPrior:
    """Move the class means to the vertices of a regular simplex, turned so that they move little; variances stay.

    With the singular value decomposition M = P S Qᵀ of the centred means (K, D), the rows of P Qᵀ are the vertices of a
    regular simplex: their inner products are the entries of I − 11ᵀ/K.
    """
    classes = statistics.num_classes
    centre = statistics.mean.mean(0)
    left, _, right = torch.linalg.svd(statistics.mean - centre, full_matrices=False)
    vertices = left[:, : classes - 1] @ right[: classes - 1]  # the last singular value is 0: the means are centred
    scale = settings.radius / (1 - 1 / classes) ** 0.5
    return GaussianPrior(centre + scale * vertices, initial.variance)
