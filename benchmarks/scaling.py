"""A figure of computation time against the number of images, classes, dimensions and levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
import torch
from fixed_point import time_iteration
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from timing import measure_medians

from nfpi.data.domain import PixelDomain
from nfpi.data.store import ImageSet
from nfpi.evaluation import evaluate_flow
from nfpi.figures.style import COLUMN_WIDTH, OKABE_ITO, STYLE
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.priors.gaussian import GaussianPrior
from nfpi.training.likelihood import negative_log_likelihood

COLUMNS = ("against", "computation", "size", "seconds")
_SIDE, _WIDTH, _BATCH, _REPEATS = 32, 16, 32, 3
_DIMENSIONS = (64, 512, 4096)


@dataclass(frozen=True)
class Scale:
    """One panel of the figure.

    Args:
        against: quantity on the x-axis.
        computation: computation that is timed.
        sizes: values on the x-axis, in increasing order.
        measure: function that times the computation, given a size and a device.
        power: largest expected exponent of the growth with size, drawn as a line; None: unknown.
    """

    against: str
    computation: str
    sizes: tuple[int, ...]
    measure: Callable[[int, torch.device], float]
    power: int | None


def _build_flow(levels: int) -> MatrixExponentialFlow:
    return MatrixExponentialFlow((3, _SIDE, _SIDE), [2] * levels, [1] * levels, [_WIDTH] * levels)


def _time_evaluation(images: int, device: torch.device) -> float:
    flow = _build_flow(2).to(device)
    pixels = np.zeros((images, _SIDE, _SIDE, 3), np.uint8)
    image_set = ImageSet(pixels, np.arange(images) % 10, {"name": "", "classes": list("0123456789"), "extra": {}})
    prior = GaussianPrior(torch.zeros(10, pixels[0].size), torch.ones(10, pixels[0].size))

    def evaluate() -> object:
        return evaluate_flow(flow, prior, image_set, batch_size=_BATCH, seed=0, domain=PixelDomain(0.0))

    return measure_medians(_REPEATS, evaluate)[0]


def _time_passes(levels: int, device: torch.device) -> float:
    flow, x = _build_flow(levels).to(device), torch.rand(_BATCH, 3, _SIDE, _SIDE, device=device)
    labels, dimensions = torch.zeros(_BATCH, dtype=torch.int64, device=device), x[0].numel()
    prior = GaussianPrior(torch.zeros(10, dimensions), torch.ones(10, dimensions)).to(device)
    flow.initialize(x)

    def run_passes() -> None:
        flow.zero_grad()
        negative_log_likelihood(flow, prior, x, labels).mean().backward()

    return measure_medians(_REPEATS, run_passes)[0]


SCALES = (
    Scale("images", "evaluation of a small flow", (32, 128, 512), _time_evaluation, 1),
    Scale("levels", "forward and backward pass of a small flow", (1, 2, 3, 4, 5), _time_passes, None),
    Scale("classes", "fixed-point iteration, D = 1024", (10, 100, 1000), lambda k, _: time_iteration(k, 1024), 2),
    Scale("dimensions", "fixed-point iteration, K = 100", _DIMENSIONS, lambda d, _: time_iteration(100, d), 1),
)


def measure_scaling(device: torch.device, scales: tuple[Scale, ...]) -> pd.DataFrame:
    """Time every size of every panel; return a frame with :data:`COLUMNS`. Fixed-point iterations run on the CPU."""

    rows = [
        (scale.against, scale.computation, size, scale.measure(size, device))
        for scale in scales
        for size in scale.sizes
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def draw_scaling(frame: pd.DataFrame, scales: tuple[Scale, ...]) -> Figure:
    """Draw one log-log panel per scale; a dashed line shows the largest expected growth."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2 * COLUMN_WIDTH, 1.6 * COLUMN_WIDTH), layout="constrained")
        panels = figure.subplots(2, -(-len(scales) // 2), squeeze=False).flat
        for panel, scale in zip(panels, scales, strict=False):
            _draw_panel(panel, scale, frame[frame["against"] == scale.against])
    return figure


def _draw_panel(panel: Axes, scale: Scale, measured: pd.DataFrame) -> None:
    sizes, seconds = measured["size"].to_numpy(float), measured["seconds"].to_numpy(float)
    panel.loglog(sizes, seconds, "o-", color=OKABE_ITO["blue"], markersize=3, label="measured")
    if scale.power is not None and len(sizes):
        expected = seconds[-1] * (sizes / sizes[-1]) ** scale.power
        label = f"slope {scale.power}"
        panel.loglog(sizes, expected, "--", color=OKABE_ITO["vermillion"], linewidth=0.8, label=label)
    panel.set_xticks(sizes, [f"{size:.0f}" for size in sizes], minor=False)
    panel.set_xticks([], minor=True)
    panel.set_xlabel(scale.against)
    panel.set_ylabel("seconds")
    panel.set_title(scale.computation)
    panel.legend(frameon=False)
