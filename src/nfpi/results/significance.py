"""Whether two rows of a table differ: paired tests over seeds and over test images, and the seeds that a test needs.

All comparisons are paired: the same seeds (with the same split, initial weights and order of images), the same test
images. Differences are first − second, in the metric's unit. scipy and statsmodels are imported where they are used,
for a table without comparisons is made in less time than they take.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from nfpi.results.intervals import LEVEL, SIGNIFICANCE_LEVEL, UNKNOWN, t_interval

_ROUNDING = 1e-12
"""Differences below this share of the values are those of floating-point numbers."""
_LARGEST_EFFECT = 50.0
"""Standard deviations; two seeds show a larger effect as surely as one of this size."""
_MOST_SEEDS = 100_000
"""Above it the t test is the test of a normal distribution."""


@dataclass(frozen=True)
class Comparison:
    """First − second, in the metric's unit.

    Attributes:
        difference: mean over seeds of the paired differences; over images where there is one seed.
        low, high: bounds of its 95 % confidence interval, NaN where it is unknown.
        p_value: two-sided; NaN where nothing can be tested.
        test: "paired t", "bootstrap" or "McNemar".
        seeds: how many pairs are compared.
        std: standard deviation of the paired differences over seeds (n − 1), NaN for one seed.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    seeds: int
    std: float


def paired_t(first: Mapping[int, float], second: Mapping[int, float]) -> Comparison:
    """Student's t test of the mean paired difference, with n − 1 degrees of freedom.

    Equal differences have no variance that a t test could use, and accuracies on few images are equal by chance. They
    are compared by the sign test: p = 2^(1 − n), or 1 where they are zero. Its 95 % interval is the difference itself,
    from six seeds on; with fewer it is unknown.

    Args:
        first, second: a metric by seed; a seed that only one of them has is left out.
    """
    seeds = sorted(first.keys() & second.keys())
    ours, theirs = (np.array([values[seed] for seed in seeds], dtype=np.float64) for values in (first, second))
    differences, scale = ours - theirs, np.maximum(np.abs(ours), np.abs(theirs))
    differences[np.abs(differences) <= _ROUNDING * scale] = 0.0
    count = len(seeds)
    if count < 2:
        difference = float(differences[0]) if count else math.nan
        return Comparison(difference, *UNKNOWN, math.nan, "paired t", count, math.nan)
    difference, std = float(differences.mean()), float(differences.std(ddof=1))
    if std <= _ROUNDING * scale.max():
        of_signs = 2.0 ** (1 - count)
        low, high = (difference, difference) if of_signs <= 1 - LEVEL else UNKNOWN
        return Comparison(difference, low, high, 1.0 if difference == 0 else of_signs, "paired t", count, 0.0)
    from scipy.stats import ttest_1samp

    p_value = float(ttest_1samp(differences, 0.0).pvalue)
    return Comparison(difference, *t_interval(differences), p_value, "paired t", count, std)


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> Comparison:
    """McNemar's exact test: is an image that only one of the two gets right as often the first's as the second's?

    The interval is that of Agresti and Min (2005), Wald's with half an image added to each of the four counts. It
    covers the choice of test images only. Values are in percent of the images.

    Args:
        first_right, second_right: whether each image has the property, (N,) bool, the same images in the same order.

    Raises:
        ValueError: the arrays are not of one length, not bool, or empty.
    """
    plus, minus, images = _discordant(first_right, second_right)
    from statsmodels.stats.contingency_tables import mcnemar as exact_test

    p_value = float(exact_test([[0, plus], [minus, 0]], exact=True).pvalue) if plus + minus else 1.0
    z, more = NormalDist().inv_cdf((1 + LEVEL) / 2), images + 2
    centre, discordant = (plus - minus) / more, plus + minus + 1
    half_width = z * math.sqrt(discordant - (plus - minus) ** 2 / more) / more
    low, high = max(100 * (centre - half_width), -100.0), min(100 * (centre + half_width), 100.0)
    return Comparison(100 * (plus - minus) / images, low, high, min(p_value, 1.0), "McNemar", 1, math.nan)


def bootstrap(
    first_right: Sequence[np.ndarray],
    second_right: Sequence[np.ndarray],
    *,
    same_images: bool,
    seed: int = 0,
    draws: int = 10_000,
) -> Comparison:
    """Percentile bootstrap of the mean paired difference, over seeds and test images.

    Seeds that share their test images share the luck of these images, too, which more seeds do not average out: seeds
    and images are then drawn independently of each other, so that a drawn image counts at every seed (Owen, 2007, "The
    pigeonhole bootstrap"). Otherwise seeds are drawn, then the images of each. With few seeds the interval is too
    narrow, by about √((n − 1) / n). p = 2 min(P(d* ≤ 0), P(d* ≥ 0)), with one draw added to each count. Values are in
    percent.

    Args:
        first_right, second_right: one array a seed, whether each image has the property, (N,) bool, the same images in
            the same order.
        same_images: whether the arrays of all seeds are of the same images in the same order.
        seed: of the generator.
        draws: number of bootstrap samples.

    Raises:
        ValueError: the numbers of seeds differ, or two arrays are not of one length, not bool, or empty, or seeds that
            share their images have different numbers of them.
    """
    if len(first_right) != len(second_right):
        raise ValueError(f"expected as many seeds of both, received {len(first_right)} and {len(second_right)}")
    counts = [_discordant(*pair) for pair in zip(first_right, second_right, strict=True)]
    if not counts:
        return Comparison(math.nan, *UNKNOWN, math.nan, "bootstrap", 0, math.nan)
    plus, minus, images = np.array(counts, dtype=np.int64).T
    differences = 100 * (plus - minus) / images
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(counts), size=(draws, len(counts)))
    if same_images:
        means = _draw_images(first_right, second_right, drawn, generator)
    else:
        means = _draw_images_of_each(plus, minus, images, drawn, generator)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    tail = int(min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0)))
    return Comparison(
        float(differences.mean()),
        float(low),
        float(high),
        min(1.0, 2 * (1 + tail) / (1 + draws)),
        "bootstrap",
        len(counts),
        float(differences.std(ddof=1)) if len(counts) > 1 else math.nan,
    )


def _draw_images(
    first_right: Sequence[np.ndarray],
    second_right: Sequence[np.ndarray],
    drawn: np.ndarray,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return the mean difference of each draw in percent, whose images are the same for all its seeds.

    Args:
        first_right, second_right: see :func:`bootstrap`.
        drawn: indices of seeds, (draws, seeds).
        generator: draws the images.
    """
    if len({len(array) for array in first_right}) > 1:
        raise ValueError("expected as many images at every seed, received different numbers")
    differences = np.stack([a.astype(np.int8) - b for a, b in zip(first_right, second_right, strict=True)], axis=1)
    # Images that all seeds judge alike are drawn together, which leaves few numbers to draw.
    patterns, count = np.unique(differences, axis=0, return_counts=True)
    images = generator.multinomial(count.sum(), count / count.sum(), size=len(drawn))
    by_seed = images @ patterns.astype(np.float64)
    means: np.ndarray = 100 * np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1) / count.sum()
    return means


def _draw_images_of_each(
    plus: np.ndarray, minus: np.ndarray, images: np.ndarray, drawn: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return the mean difference of each draw in percent, each of whose seeds has images of its own.

    Args:
        plus, minus, images: how many images only the first has right, only the second, and how many there are,
            (seeds,).
        drawn: indices of seeds, (draws, seeds).
        generator: draws the images.
    """
    shares = np.stack([plus, minus, images - plus - minus], axis=-1) / images[:, None]
    samples = generator.multinomial(images[drawn], shares[drawn])
    means: np.ndarray = (100 * (samples[..., 0] - samples[..., 1]) / images[drawn]).mean(axis=1)
    return means


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's step-down method, in the same order; NaN stays NaN and does not count."""
    adjusted = np.array(p_values, dtype=np.float64)
    known = ~np.isnan(adjusted)
    # statsmodels' multipletests has the same, and collects the garbage of the process at each call.
    order = np.flatnonzero(known)[np.argsort(adjusted[known], kind="stable")]
    steps = np.maximum.accumulate(adjusted[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(value) for value in adjusted]


def seeds_needed(std: float, effect: float, *, power: float = 0.8, level: float = SIGNIFICANCE_LEVEL) -> int | None:
    """Return the fewest seeds with which a two-sided paired t test finds an effect, at least 2.

    Args:
        std: standard deviation of the paired differences over seeds, in the metric's unit.
        effect: true mean difference that is to be found, in the same unit.
        power: probability that the test finds it.
        level: of the test.

    Returns:
        The number of seeds; None where `std` is unknown, or the effect is unknown or zero.

    Raises:
        ValueError: power or level are not between 0 and 1, or `std` is negative.
    """
    if not (0 < level < power < 1) or std < 0:
        raise ValueError(f"expected std ≥ 0 and 0 < level < power < 1, received {std}, {level} and {power}")
    if not (math.isfinite(std) and math.isfinite(effect)) or effect == 0:
        return None
    from statsmodels.stats.power import TTestPower

    size = _LARGEST_EFFECT if std == 0 else min(abs(effect) / std, _LARGEST_EFFECT)
    normal = NormalDist()
    of_normal = ((normal.inv_cdf(1 - level / 2) + normal.inv_cdf(power)) / size) ** 2
    if of_normal > _MOST_SEEDS:
        return math.ceil(of_normal)
    counts = range(2, 2 * _MOST_SEEDS)
    found = bisect_left(counts, power, key=lambda count: float(TTestPower().power(size, count, level)))
    return counts[found]


def _discordant(first_right: np.ndarray, second_right: np.ndarray) -> tuple[int, int, int]:
    """How many images only the first has right, how many only the second, and how many there are."""
    first, second = np.asarray(first_right), np.asarray(second_right)
    if first.dtype != bool or second.dtype != bool or first.ndim != 1 or first.shape != second.shape or not first.size:
        received = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
        raise ValueError(f"expected two bool arrays of one length, received {received}")
    return int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first)), first.size
