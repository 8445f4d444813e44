"""Figure of the residuals of the fixed-point iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from nfpi.config.base import PositiveFloat, Settings
from nfpi.config.priors import FixedPointSettings
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, RunFigure, register_figure
from nfpi.figures.style import format_weight_label, new_figure, notice
from nfpi.runs import RESIDUALS, Layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_QUANTITIES = {"mean_residual": r"$\max_i\ \|δμ_i\|_2$", "variance_residual": r"$\max_i\ \|δv_i\|_2$"}
_ENDS = {
    "converged": ("o", "converged"),
    "not_converged": (">", "not converged in {} iterations"),
    "diverged": ("X", "diverged"),
}
"""Marker and label for each outcome of a fit."""


class ResidualsFigure(RunFigure):
    """Residual of the fixed-point iteration against the iteration."""

    title = "residuals of the fixed point"
    caption = (
        "Change of the mean (top) and of the variances (bottom) of a class in each fixed-point iteration: the largest "
        "Euclidean norm over the classes, in units of the latents (squared for variances); a quantity that is not "
        "fitted has no panel. The mark at the end of the line of each λ says how the iteration ended. Dashed: the "
        "tolerance at which the iteration ends."
    )
    is_quick = True

    lambdas: Annotated[list[PositiveFloat], Field(min_length=1)]

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the fixed_point.csv of each λ."""
        config.fixed_point_settings("figures.residuals", self.prior)
        runs = [config.run(self.dataset, self.flow, self.prior, weight, config.seeds[0]) for weight in self.lambdas]
        return {"iterations": [f"{layout.of(run)}/fit/fixed_point.csv" for run in runs]}

    def reads(self, config: Config) -> dict[str, Settings]:
        """Return the settings of the fits, for tolerance and maximum number of iterations."""
        return {"prior": config.fixed_point_settings("figures.residuals", self.prior)}

    def describe(self, config: Config) -> str:
        """Complete the caption with the runs."""
        return f"{self.caption} {self.dataset}, {self.flow}, {self.prior}, seed {config.seeds[0]}."


@register_figure("residuals", ResidualsFigure)
def draw(settings: ResidualsFigure, inputs: FigureInputs) -> Drawn:
    """Draw the residuals of the fits with several λ; if all diverged at once, draw a picture that says so.

    A fit diverged at once if it has no iteration before, or if the training before it diverged.

    Raises:
        ValueError: the numbers of files and λ differ.
    """
    from nfpi.results.recorded.csv_files import read_csv

    files = inputs.files["iterations"]
    prior = FixedPointSettings.model_validate(inputs.settings["prior"])
    curves = [
        (weight, read_csv(file, RESIDUALS, infinite=True)) for weight, file in zip(settings.lambdas, files, strict=True)
    ]
    if not any((rows[column] > 0).any() for _, rows in curves for column in _QUANTITIES):
        return Drawn({"residuals": notice("every fit, or the training before it, diverged at once")})
    figure = draw_residuals(
        curves, dataset=settings.dataset, tolerance=prior.tolerance, max_iterations=prior.max_iterations
    )
    return Drawn({"residuals": figure})


def draw_residuals(
    curves: Sequence[tuple[float, pd.DataFrame]], *, dataset: str, tolerance: float, max_iterations: int
) -> Figure:
    """Draw the changes of means and variances in each iteration, one line per λ.

    The panels show max_i ‖δμ_i‖₂ and max_i ‖δv_i‖₂ against the iteration on logarithmic axes, with the tolerance as a
    dashed line; a quantity that is not fitted has no panel. The marker at the end of a line shows the outcome; lines
    are clipped at the top of the axes.

    Args:
        curves: pairs of λ and a table with the columns iteration, mean_residual, variance_residual.
        dataset: name of the data set.
        tolerance: residual at which the iteration converges.
        max_iterations: maximum number of iterations.
    """
    import matplotlib
    from matplotlib.lines import Line2D

    quantities = [column for column in _QUANTITIES if any((rows[column] > 0).any() for _, rows in curves)]
    curves = sorted(curves, key=lambda curve: curve[0])
    ends = [_infer_outcome(rows, tolerance, max_iterations) for _, rows in curves]
    colours = matplotlib.colormaps["cividis"].reversed()(np.linspace(0.15, 1.0, len(curves)))
    with new_figure(1.5 * len(quantities) + 0.75) as figure:
        grid = figure.subplots(len(quantities), 1, sharex=True, squeeze=False)[:, 0]
        for axes, column in zip(grid, quantities, strict=True):
            bottom, top = _compute_limits([rows[column] for _, rows in curves], ends, tolerance)
            for (_, rows), colour, end in zip(curves, colours, ends, strict=True):
                _draw_curve(axes, rows.loc[rows[column] > 0, ["iteration", column]].to_numpy(), top, colour, end)
            axes.axhline(tolerance, color="0.4", linestyle="--", linewidth=0.8)
            axes.set(xscale="log", yscale="log", ylim=(bottom, top), ylabel=_QUANTITIES[column])
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
            axes.yaxis.set_minor_formatter("")
            axes.grid()
        grid[0].set_title(dataset, loc="left")
        grid[-1].set_xlabel("Iteration")
        figure.align_ylabels()
        lines: list[Any] = [Line2D([], [], color=colour) for colour in colours]
        labels = [f"λ = {format_weight_label(weight)}" for weight, _ in curves]
        lines.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8))
        labels.append(f"tolerance {tolerance:g}")
        for end in (name for name in _ENDS if name in ends):
            lines.append(Line2D([], [], linestyle="none", color="0.6", **_get_end_style(end)))
            labels.append(_ENDS[end][1].format(max_iterations))
        figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=6.5)
    return figure


def _draw_curve(axes: Axes, points: np.ndarray, top: float, colour: np.ndarray, end: str) -> None:
    """Draw a line through points (N, 2), and the marker at its end or where it leaves the axes."""
    if not len(points):
        return
    axes.plot(*points.T, color=colour, linewidth=1.0)
    beyond = points[:, 1] > top
    iteration, residual = points[beyond.argmax() if beyond.any() else -1]
    axes.plot(iteration, min(residual, top), color=colour, clip_on=False, zorder=5, **_get_end_style(end))


def _infer_outcome(rows: pd.DataFrame, tolerance: float, max_iterations: int) -> str:
    """Return the outcome of a fit from its residuals."""
    if len(rows) and rows[list(_QUANTITIES)].iloc[-1].max() <= tolerance:
        return "converged"
    return "not_converged" if len(rows) >= max_iterations else "diverged"


def _compute_limits(values: list[pd.Series], ends: list[str], tolerance: float) -> tuple[float, float]:
    """Return the limits of an axis of residuals; of a diverged fit, only the first residual counts."""
    kept = [series.iloc[:1] if end == "diverged" else series for series, end in zip(values, ends, strict=True)]
    shown = np.array([*np.concatenate(kept), tolerance])
    shown = shown[np.isfinite(shown) & (shown > 0)]  # the tolerance may be 0
    return (0.5 * shown.min(), 5 * shown.max()) if shown.size else (0.1, 10.0)


def _get_end_style(end: str) -> dict[str, Any]:
    return {"marker": _ENDS[end][0], "markersize": 4.5, "markeredgecolor": "black", "markeredgewidth": 0.4}
