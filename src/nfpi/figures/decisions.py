"""Figures of calibration and abstention: reliability diagram, and risk against coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field

from nfpi.config.base import Augmentation, Name, NonNegativeFloat
from nfpi.config.experiments import Refit
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, RunFigure, register_figure
from nfpi.figures.style import (
    CLASS_COLOURS,
    LEGEND_HEIGHT,
    PANEL_HEIGHT,
    format_weight_label,
    new_figure,
)
from nfpi.results.metrics import BINS
from nfpi.results.statistics.abstention import compute_margins, compute_risks
from nfpi.results.statistics.calibration import fit_temperature
from nfpi.runs import PREDICTIONS_FILE, Layout, Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from nfpi.results.recorded.predictions import Predictions

_COVERAGES = np.arange(1, 101) / 100


class DecisionsFigure(RunFigure):
    """Reliability diagram and risk–coverage curve of flows, and of classifiers trained on real images."""

    title = "calibration and abstention"
    caption = (
        "Reliability: accuracy of the test images whose probability of the predicted class lies in a bin, against the "
        "mean of this probability, without and with the temperature fitted on the validation split. Dashed: agreement. "
        "Risk and coverage: share of errors among the test images with the largest margins between the two likeliest "
        "classes, against the share of these images, means over seeds."
    )
    pictures = ("reliability", "risk_coverage")
    is_quick = True

    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=1)]
    refit: Refit | None = None
    """how the Gaussians are estimated again after the training; None: they are not"""
    classifiers: dict[Name, Augmentation] = {}
    """classifiers trained on real images, with their augmentation"""

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the predictions of each curve in turn, those of all seeds."""
        flow, seed = (self.dataset, self.flow, self.prior), config.seeds[0]
        runs = [config.run(*flow, weight, seed, self.refit) for weight in self.lambdas]
        for name, augmentation in self.classifiers.items():
            runs.append(Run(dataset=self.dataset, seed=seed, classifier=name, augmentation=augmentation))
        folders = [layout.of(replace(run, seed=seed)) for run in runs for seed in config.seeds]
        return {"predictions": [f"{folder}/{PREDICTIONS_FILE}" for folder in folders]}


@register_figure("decisions", DecisionsFigure)
def draw(settings: DecisionsFigure, inputs: FigureInputs) -> Drawn:
    """Draw the predictions of runs.

    Raises:
        Diverged: a run diverged.
    """
    from nfpi.results.recorded.predictions import read_predictions

    labels = [*(f"λ = {format_weight_label(weight)}" for weight in settings.lambdas), *settings.classifiers]
    paths = inputs.files["predictions"]
    seeds = len(paths) // len(labels)
    found = {
        label: [read_predictions(path) for path in paths[index * seeds : (index + 1) * seeds]]
        for index, label in enumerate(labels)
    }
    return Drawn({"reliability": draw_reliability(found), "risk_coverage": draw_risk_coverage(found)})


def draw_reliability(predictions: Mapping[str, Sequence[Predictions]]) -> Figure:
    """Draw accuracy against confidence, without and with the temperature; predictions of each seed by label."""
    with new_figure(2 * PANEL_HEIGHT + LEGEND_HEIGHT) as figure:
        grid = figure.subplots(2, 1, sharex=True)
        for axes, title in zip(grid, ("without temperature", "with temperature"), strict=True):
            axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=0.8)
            for colour, (label, of_seeds) in zip(cycle(CLASS_COLOURS), predictions.items(), strict=False):
                points = _compute_bins(of_seeds, is_calibrated=axes is grid[1])
                axes.plot(*points, "o-", color=colour, markersize=3, linewidth=1.0, label=label)
            axes.set_ylabel("Accuracy")
            axes.set_title(title, loc="left")
            axes.grid()
        grid[1].set_xlabel("Probability of the predicted class")
        figure.legend(*grid[1].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _compute_bins(of_seeds: Sequence[Predictions], is_calibrated: bool) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean confidence and accuracy of the bins of the test images of all seeds."""
    from sklearn.calibration import calibration_curve

    confidence = []
    for found in of_seeds:
        temperature = 1.0
        if is_calibrated and found.validation_label.size:
            temperature = fit_temperature(found.validation_class_log_prob, found.validation_label)
        divided = found.class_log_prob.astype(np.float64) / temperature
        confidence.append(np.exp(divided.max(1) - np.logaddexp.reduce(divided, 1)))
    is_correct = np.concatenate([found.is_correct for found in of_seeds])
    accuracy, mean_confidence = calibration_curve(is_correct, np.concatenate(confidence), n_bins=BINS)
    return mean_confidence, accuracy


def draw_risk_coverage(predictions: Mapping[str, Sequence[Predictions]]) -> Figure:
    """Draw the share of errors among the images of largest margin against their share; predictions by label."""
    with new_figure(PANEL_HEIGHT + LEGEND_HEIGHT) as figure:
        axes = figure.subplots()
        for colour, (label, of_seeds) in zip(cycle(CLASS_COLOURS), predictions.items(), strict=False):
            curves = [_compute_risk_curve(found) for found in of_seeds]
            axes.plot(100 * _COVERAGES, 100 * np.mean(curves, 0), color=colour, linewidth=1.0, label=label)
        axes.set(xlabel="Coverage (%)", ylabel="Error (%)", ylim=(0, None))
        axes.grid()
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _compute_risk_curve(found: Predictions) -> np.ndarray:
    """Compute the risk at coverages of 1, 2, …, 100 %."""
    risks = compute_risks(compute_margins(found.class_log_prob.astype(np.float64)), found.is_correct)
    curve: np.ndarray = risks[np.ceil(_COVERAGES * len(risks)).astype(int) - 1]
    return curve
