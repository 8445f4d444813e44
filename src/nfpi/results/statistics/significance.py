"""Paired significance tests over seeds and test images, and the number of seeds that they need.

All comparisons are paired: both sides have the same seeds (with the same split, initial weights and order of images)
and the same test images. Differences are first − second, in the metric's unit. If the seeds draw their splits from the
same images, their differences are correlated, for which the paired t test is corrected (Nadeau and Bengio, 2003). scipy
is imported where it is used, since its import takes longer than making a table without comparisons.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from nfpi.results.statistics.intervals import LEVEL, SIGNIFICANCE_LEVEL, UNKNOWN, t_interval

_POWER = 0.8
"""Probability with which an effect is to be detected."""
_ROUNDING = 1e-12
"""Relative differences up to this are rounding errors."""
_MOST_SEEDS = 100_000
"""Number of seeds above which the t distribution is approximated by the normal distribution."""


@dataclass(frozen=True)
class Comparison:
    """Result of a test of the difference first − second, in the metric's unit.

    Attributes:
        difference: mean of the paired differences over seeds, or over images for one seed.
        low, high: bounds of its 95 % confidence interval, NaN if unknown.
        p_value: two-sided p-value; NaN if not testable.
        test: "paired t" or "McNemar".
        seeds: number of compared seeds.
        std: standard deviation of the paired differences over seeds (n − 1), NaN for one seed.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    seeds: int
    std: float


def paired_t(first: Mapping[int, float], second: Mapping[int, float], *, split_ratio: float = 0.0) -> Comparison:
    """Test the mean paired difference by Student's t test, with n − 1 degrees of freedom.

    With `split_ratio`, the test is the corrected resampled t test, whose variance of the mean is (1/n + r) s² (Nadeau
    and Bengio, 2003, "Inference for the generalization error").

    If all differences are equal, as may happen by chance for accuracies on few images, their variance is zero, and the
    sign test is used: p = 2^(1 − n), or 1 if they are zero. The 95 % interval is then the difference itself for at
    least six seeds, and unknown for fewer. The sign test is not corrected for overlapping splits.

    Args:
        first, second: values of a metric by seed; only common seeds are compared.
        split_ratio: r, the number of test images per training image, if the seeds draw their splits from the same
            images; 0: they do not overlap, or are the same for all seeds.
    """
    seeds = sorted(first.keys() & second.keys())
    a, b = (np.array([values[seed] for seed in seeds], dtype=np.float64) for values in (first, second))
    differences, scale = a - b, np.maximum(np.abs(a), np.abs(b))
    differences[np.abs(differences) <= _ROUNDING * scale] = 0.0
    count = len(seeds)
    if count < 2:
        difference = float(differences[0]) if count else math.nan
        return Comparison(difference, *UNKNOWN, math.nan, "paired t", count, math.nan)
    difference, std = float(differences.mean()), float(differences.std(ddof=1))
    if std <= _ROUNDING * scale.max():
        sign_test = 2.0 ** (1 - count)
        low, high = (difference, difference) if sign_test <= 1 - LEVEL else UNKNOWN
        return Comparison(difference, low, high, 1.0 if difference == 0 else sign_test, "paired t", count, 0.0)
    from scipy.special import stdtr

    statistic = difference / (std * math.sqrt(1 / count + split_ratio))
    p_value = float(2 * stdtr(count - 1, -abs(statistic)))
    return Comparison(difference, *t_interval(differences, split_ratio), p_value, "paired t", count, std)


def mcnemar(first: np.ndarray, second: np.ndarray) -> Comparison:
    """Test the difference of two proportions on the same images by McNemar's exact test.

    The interval is Wald's with ½ added to each of the four counts (Agresti and Min, 2005). It accounts for the sampling
    of test images only. Values are in percent of the images.

    Args:
        first, second: whether each image has the property whose proportion is tested, such as a correct
            prediction, (N,) bool, the same images in the same order.

    Raises:
        ValueError: the arrays have different lengths, are not bool, or are empty.
    """
    if first.dtype != bool or second.dtype != bool or first.ndim != 1 or first.shape != second.shape or not first.size:
        received = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
        raise ValueError(f"expected two bool arrays of the same length, received {received}")
    plus, minus = int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))
    from scipy.stats import binom

    p_value = min(2 * float(binom.cdf(min(plus, minus), plus + minus, 0.5)), 1.0)
    z, total = NormalDist().inv_cdf((1 + LEVEL) / 2), first.size + 2
    centre, discordant = (plus - minus) / total, plus + minus + 1
    half_width = z * math.sqrt(discordant - (plus - minus) ** 2 / total) / total
    low, high = max(100 * (centre - half_width), -100.0), min(100 * (centre + half_width), 100.0)
    return Comparison(100 * (plus - minus) / first.size, low, high, p_value, "McNemar", 1, math.nan)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values by Holm's step-down method, and return them in the given order; NaN is ignored and stays NaN."""
    adjusted = np.array(p_values, dtype=np.float64)
    known = ~np.isnan(adjusted)
    order = np.flatnonzero(known)[np.argsort(adjusted[known], kind="stable")]
    steps = np.maximum.accumulate(adjusted[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def compute_seeds_needed(
    std: float, effect: float, *, level: float = SIGNIFICANCE_LEVEL, split_ratio: float = 0.0
) -> int | None:
    """Compute the smallest number of seeds, at least 2, with which :func:`paired_t` detects an effect in 80 % of cases.

    If the standard deviation is 0, the sign test detects the effect once 2^(1 − n) < `level`. With `split_ratio`, the
    standard error of the mean cannot fall below s √r, so that for small effects no number of seeds suffices.

    Args:
        std: standard deviation of the paired differences over seeds, in the metric's unit.
        effect: true mean difference to be detected, in the same unit.
        level: two-sided significance level.
        split_ratio: r, see :func:`paired_t`.

    Returns:
        The number of seeds; None if `std` is unknown, the effect is unknown or zero, or no number suffices.

    Raises:
        ValueError: not 0 < level < 0.8, or `std` is negative.
    """
    if not 0 < level < _POWER or std < 0:
        raise ValueError(f"expected std ≥ 0 and 0 < level < {_POWER}, received {std} and {level}")
    if not (math.isfinite(std) and math.isfinite(effect)) or effect == 0:
        return None
    if std == 0:
        return next(count for count in itertools.count(2) if 2.0 ** (1 - count) < level)
    size, normal = abs(effect) / std, NormalDist()
    # With the normal distribution, size / √(1/n + r) = z has to hold for the sum z of two quantiles.
    reduced = size / (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(_POWER))
    inverse = reduced * reduced - split_ratio  # 1/n
    if inverse <= 0:
        return None
    if 1 / inverse > _MOST_SEEDS:
        return math.ceil(1 / inverse)
    counts = range(2, 2 * _MOST_SEEDS)
    index = bisect_left(
        counts, _POWER, key=lambda count: _compute_power(size / math.sqrt(1 / count + split_ratio), count - 1, level)
    )
    return counts[index] if index < len(counts) else None


def _compute_power(shift: float, freedom: int, level: float) -> float:
    """Compute the power of a two-sided t test, P(|T| > t) for T = (Z + δ) / √(V / ν), as the mean over Z of P given Z.

    Given the normal variable Z, |T| > t if the χ² variable V is less than ν (Z + δ)² / t². The noncentral t
    distribution of scipy.stats is not used, as it is NaN for many δ.

    Args:
        shift: δ, the true mean divided by its standard error.
        freedom: degrees of freedom ν, up to 2·10⁵, beyond which the grid of Z is too coarse.
        level: significance level, of which t is the quantile.
    """
    from scipy.special import gammainc, stdtrit

    z, step = np.linspace(-8.5, 8.5, 4251, retstep=True)
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    quantile = float(stdtrit(freedom, 1 - level / 2))
    detected = gammainc(freedom / 2, freedom / 2 * ((z + shift) / quantile) ** 2)
    return float(step * (density * detected).sum())
