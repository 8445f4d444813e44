"""95 % confidence intervals of an accuracy on n images, and of a mean over seeds."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
"""Confidence level of intervals."""
SIGNIFICANCE_LEVEL = 0.05
"""Family-wise significance level of the tests of a table, or of a claim."""
FEW_IMAGES = 100
"""Number of images below which two standard errors of an accuracy, √(p (1 − p) / n), may exceed 10 %."""
UNKNOWN = (math.nan, math.nan)
"""Bounds of an unknown interval."""


def wilson_interval(percentage: float, n: int) -> tuple[float, float]:
    """Compute the score interval of a binomial proportion (Wilson, 1927), in percent.

    It accounts for the sampling of test images only.

    Args:
        percentage: percentage of successes, 0 to 100.
        n: number of images.
    """
    # Not from scipy.stats, whose import takes longer than making a table.
    z, p = NormalDist().inv_cdf((1 + LEVEL) / 2), percentage / 100
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low = 0.0 if p == 0 else centre - half_width
    high = 1.0 if p == 1 else centre + half_width
    return 100 * low, 100 * high


def describe_few_images(n: int) -> str:
    """Say how uncertain a choice by the accuracy on few validation images is: by two standard errors at p = ½."""
    return (
        f"{n} validation images are too few to choose λ by: an accuracy on them is known to ± "
        f"{100 / math.sqrt(n):.0f} % at worst; compare all λ, not only the best"
    )


def t_interval(values: np.ndarray, split_ratio: float = 0.0) -> tuple[float, float]:
    """Compute Student's t interval of the mean: mean ± t · s · √(1/n + r) with n − 1 degrees of freedom.

    The number r of test images per training image corrects for the overlap of splits that the seeds draw from the same
    images (Nadeau and Bengio, 2003, "Inference for the generalization error"): the overlap correlates the values of the
    seeds, so that the variance of the mean is larger than s²/n.

    Args:
        values: one value per seed, (n,), n > 1.
        split_ratio: r; 0: splits do not overlap, or are the same for all seeds.
    """
    from scipy.special import stdtrit

    n = len(values)
    error = values.std(ddof=1) * math.sqrt(1 + n * split_ratio) / math.sqrt(n)
    half_width = float(stdtrit(n - 1, (1 + LEVEL) / 2) * error)
    mean = float(values.mean())
    return mean - half_width, mean + half_width


def std_interval(std: float, n: int) -> tuple[float, float]:
    """Compute the interval of the standard deviation of normal values, s √((n − 1) / χ²), from that of n of them.

    Args:
        std: s, with divisor n − 1; NaN or 0 is returned as it is.
        n: number of values.
    """
    if not std > 0:
        return std, std
    from scipy.special import chdtri

    low, high = (std * math.sqrt((n - 1) / chdtri(n - 1, (1 + sign * LEVEL) / 2)) for sign in (-1, 1))
    return low, high
