"""Compare the fixed-point iteration with sums over an array of all pairs of classes.

`python fixed_point.py CLASSES DIMENSIONS` prints seconds per iteration and the process's peak memory (GiB) as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from timing import Measurement, compare_times, measure_medians
from torch import Tensor

from nfpi.config.priors import FixedPointConfig
from nfpi.priors.fixed_point import fit_fixed_point
from nfpi.priors.statistics import ClassStatistics

_ITERATIONS = 5
"""Iterations of a timed fit; the time includes its convergence checks."""


def make_random_statistics(classes: int, dimensions: int) -> ClassStatistics:
    """Return reproducible random statistics of K classes in D dimensions, in float64."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    variance = 0.5 + torch.rand(classes, dimensions, generator=generator, dtype=torch.float64)
    return ClassStatistics(torch.full((classes,), 500), mean, variance)


def time_iteration(classes: int, dimensions: int) -> float:
    """Time one fit of K classes in D dimensions on the CPU, in seconds per iteration."""
    config = FixedPointConfig(weight=1e3, tolerance=0.0, max_iterations=_ITERATIONS)
    statistics = make_random_statistics(classes, dimensions)
    return measure_medians(1, partial(fit_fixed_point, statistics, config))[0] / _ITERATIONS


def measure_fixed_point(repeats: int, classes: int, dimensions: int) -> Iterator[Measurement]:
    """Time one iteration on the CPU in float64."""
    statistics = make_random_statistics(classes, dimensions)
    updates: tuple[Literal["released", "exact"], ...] = ("released", "exact")
    for update in updates:
        config = FixedPointConfig(weight=1e3, update=update, tolerance=0.0, max_iterations=_ITERATIONS)
        fit, slow = measure_medians(
            repeats,
            partial(fit_fixed_point, statistics, config),
            partial(iterate_by_broadcasting, statistics.mean, statistics.variance, config),
        )
        name = f"fixed-point iteration ({update}), K = {classes}, D = {dimensions}, float64, CPU"
        yield compare_times(name, "sums over K×K×D arrays", fit / _ITERATIONS, slow, "at least 30×")


def iterate_by_broadcasting(m: Tensor, v: Tensor, config: FixedPointConfig) -> tuple[Tensor, Tensor]:
    """Compute one iteration of Eqs. 5-7 literally, with K×K×D arrays of all pairs [i, j], starting from m and v.

    Args:
        m, v: (K, D), means and variances of the classes.
        config: settings with `scale="pairwise"` that fit both mean and variance.

    Returns:
        New mean and variance, (K, D).
    """
    classes = len(m)
    c = config.weight / (classes * (classes - 1))
    gap = m[:, None] - m[None]
    vi, vj = v[:, None], v[None]
    kld = 0.5 * (vj.log() - vi.log() - 1 + vi / vj + gap**2 / vj).sum(2)
    pi = torch.where(torch.eye(classes, dtype=torch.bool), 1.0, kld)
    kappa = torch.exp(-kld / (pi * config.alpha)) / (pi * config.alpha)
    kappa = kappa.fill_diagonal_(0.0)[:, :, None]
    transposed = kappa.transpose(0, 1)
    released = config.update == "released"
    scale, precision_i, precision_j = vi, 1 / vi, 1 / vj
    if released and config.isotropic_mean_update:
        scale, precision_i, precision_j = (t.mean(2, keepdim=True) for t in (scale, precision_i, precision_j))
    mean = m + c * (scale * (kappa * precision_j + transposed * precision_i) * gap).sum(1)
    squares = gap**2
    if released and config.pooled_mean_gaps:
        squares = squares.sum(0)[None]
    a = (1 + c * (kappa - transposed).sum(1)) / v + c * (transposed * (squares + vj)).sum(1) / v**2
    if released:
        a = v**2 * a
    b = v + c * v**2 * (kappa / vj).sum(1)
    return mean, (b / a).sqrt()


def measure_large_fit(classes: int, dimensions: int) -> Iterator[Measurement]:
    """Measure the time per iteration and the peak memory of a fit in a process of its own."""
    command = [sys.executable, __file__, str(classes), str(dimensions)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak = json.loads(process.stdout)
    array = classes * classes * dimensions * 8 / 2**30
    what = f"K = {classes}, D = {dimensions}, float64"
    yield Measurement(f"fixed-point iteration, {what}, CPU", "", seconds)
    name, reference = f"fixed-point fit, {what}: peak memory of the process", f"one K×K×D array: {array:.1f} GiB"
    yield Measurement(name, reference, peak, array, None, "GiB", "at most 1.5 GiB")


def _read_peak_memory() -> float:
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux, getrusage returns the parent's peak if that was higher
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


if __name__ == "__main__":
    print(json.dumps([time_iteration(*map(int, sys.argv[1:])), _read_peak_memory()]))
