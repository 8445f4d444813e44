"""Map of the convergence of the fixed-point iteration, by λ, update, scale and fitted moments."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerPatch
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import StrMethodFormatter
from tqdm import tqdm

from nfpi.config.figures import DIVERGENCE_CAUSES, ConvergenceFigure
from nfpi.config.priors import FixedPointConfig
from nfpi.figures.drawn import Drawn, FigureInputs
from nfpi.figures.fit_outcomes import fit_with_outcome
from nfpi.figures.style import COLUMN_WIDTH, STYLE, FigureError, format_weight_label, require_columns
from nfpi.priors.files import load_prior, load_statistics
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics

COLUMNS = {
    "dataset": "str",
    "alpha": "float64",
    "fitted": "str",
    "update": "str",
    "scale": "str",
    "lambda": "float64",
    "outcome": "str",
    "iterations": "int64",
    "quantity": "str",
    "class": "str",
}
"""Columns of a map of convergence and their types."""

_FITTED = {
    "both": (True, True, "$μ$ and $Σ$"),
    "mean": (True, False, "$μ$ only, $Σ = I$"),
    "variance": (False, True, "$Σ$ only"),
}
"""Whether means and variances are fitted, and the title of the panel."""

_COLOURS = colormaps["viridis"].reversed()  # perceptually uniform, and without the grey of diverged cells


class _Letter(Patch):
    """A cell of the legend, with a letter."""

    def __init__(self, letter: str, **style: Any) -> None:
        super().__init__(linewidth=0.5, **style)
        self.letter = letter


class _LetterHandler(HandlerPatch):
    """Legend handler that draws a :class:`_Letter`."""

    def create_artists(self, legend: Legend, orig_handle: Any, *place: Any) -> list[Any]:
        """Return the cell and the letter in its centre."""
        x, y, width, height, fontsize, transform = place
        text = Text(width / 2 - x, height / 2 - y, orig_handle.letter, fontsize=fontsize - 0.5)
        text.set(ha="center", va="center_baseline", transform=transform)
        return [*super().create_artists(legend, orig_handle, *place), text]


def draw(settings: ConvergenceFigure, inputs: FigureInputs) -> Drawn:
    """Fit the Gaussians of an initial state with all combinations of settings, and map the outcomes."""
    statistics = load_statistics(inputs.file("statistics"))
    initial, _ = load_prior(inputs.file("initial"))
    fits = compute_convergence(statistics, initial, settings)
    table = pd.DataFrame(list(tqdm(fits, desc="map convergence", unit="fit", disable=None)), columns=list(COLUMNS))
    return Drawn({"convergence_map": draw_convergence_map(table)}, table)


def compute_convergence(
    statistics: ClassStatistics, initial: GaussianPrior, settings: ConvergenceFigure
) -> Iterator[dict[str, Any]]:
    """Fit the Gaussians for every λ, update, scale π, and choice of fitted moments, other settings at their defaults.

    If only means are fitted, Σ = I, as in the paper; the other fits start at `initial`.

    Args:
        statistics: statistics of the latents of an initial state.
        initial: the Gaussians of the same initial state.
        settings: name of the data set, α, and all λ.

    Yields:
        Rows with the columns :data:`COLUMNS`.
    """
    unit = GaussianPrior(initial.mean, torch.ones_like(initial.mean))
    updates: tuple[Literal["released", "exact"], ...] = ("released", "exact")
    scales: tuple[Literal["pairwise", "average"], ...] = ("pairwise", "average")
    for fitted, update, scale, weight in product(_FITTED, updates, scales, sorted(set(settings.lambdas))):
        fit_mean, fit_variance, _ = _FITTED[fitted]
        config = FixedPointConfig(
            weight=weight,
            alpha=settings.alpha,
            scale=scale,
            update=update,
            fit_mean=fit_mean,
            fit_variance=fit_variance,
        )
        outcome, _ = fit_with_outcome(statistics, config, initial if fit_variance else unit)
        yield {
            "dataset": settings.dataset,
            "alpha": settings.alpha,
            "fitted": fitted,
            "update": update,
            "scale": scale,
            **outcome,
        }


def draw_convergence_map(table: pd.DataFrame) -> Figure:
    """Draw the number of iterations to convergence by λ, update, scale π, and fitted moments.

    Colour and number show the iterations; hatched cells did not converge within the maximum number; grey cells
    diverged, and their letter names the quantity that failed first.

    Args:
        table: table with the columns :data:`COLUMNS`.

    Raises:
        FigureError: the table is empty or lacks a column.
    """
    require_columns(table, COLUMNS, "a map of convergence")
    if table.empty:
        raise FigureError("expected at least one row, received an empty table")
    weights = sorted(table["lambda"].unique())
    groups = [(name, table[table["fitted"] == name]) for name in _FITTED if (table["fitted"] == name).any()]
    kinds = [list(dict.fromkeys(zip(rows["update"], rows["scale"], strict=True))) for _, rows in groups]
    norm = LogNorm(1, 1000)
    with matplotlib.rc_context(STYLE):
        height = 0.17 * sum(map(len, kinds)) + 0.2 * len(groups) + 1.45
        figure = Figure(figsize=(COLUMN_WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=0.02, w_pad=0.02))
        grid = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[len(k) for k in kinds])[:, 0]
        for axes, (name, rows), kind in zip(grid, groups, kinds, strict=True):
            for _, row in rows.iterrows():
                place = (weights.index(row["lambda"]), kind.index((row["update"], row["scale"])))
                _draw_cell(axes, place, row, norm)
            axes.set_xlim(-0.5, len(weights) - 0.5)
            axes.set_ylim(len(kind) - 0.5, -0.5)
            axes.set_yticks(range(len(kind)), [f"{update}, {scale} π" for update, scale in kind])
            axes.set_title(_FITTED[name][2], loc="left", fontsize=7, pad=2)
            axes.tick_params(length=0, labelsize=6)
            axes.spines[:].set_visible(False)
        rotation = 90 if len(weights) > 6 else 0
        grid[-1].set_xticks(range(len(weights)), [format_weight_label(weight) for weight in weights], rotation=rotation)
        grid[-1].set_xlabel("Weight λ of the repulsion", fontsize=7)
        first = table.iloc[0]
        figure.suptitle(f"{first['dataset']}, initial state, α = {first['alpha']:g}", x=0.01, ha="left", fontsize=8)
        scale = matplotlib.cm.ScalarMappable(norm, _COLOURS)
        bar = figure.colorbar(scale, ax=list(grid), location="bottom", aspect=40, pad=0.02, fraction=0.05)
        bar.set_label("Iterations to convergence", fontsize=7)
        bar.ax.tick_params(labelsize=6)
        bar.ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        _add_legend(figure, table)
    return figure


def _get_cell_style(outcome: str) -> dict[str, Any]:
    if outcome == "diverged":
        return {"facecolor": "0.85", "edgecolor": "white"}
    return {"facecolor": "white", "edgecolor": "0.5", "hatch": "//////"}


def _draw_cell(axes: Axes, place: tuple[int, int], row: pd.Series, norm: LogNorm) -> None:
    column, line = place
    corner = (column - 0.5, line - 0.5)
    if row["outcome"] != "converged":
        axes.add_patch(Rectangle(corner, 1, 1, linewidth=0.5, **_get_cell_style(row["outcome"])))
        text, colour = _look_up_cause(row["quantity"])[0] if row["outcome"] == "diverged" else "", "black"
    else:
        shade = _COLOURS(norm(row["iterations"]))
        axes.add_patch(Rectangle(corner, 1, 1, linewidth=0.5, facecolor=shade, edgecolor="white"))
        luminance = np.dot(shade[:3], (0.299, 0.587, 0.114))
        text, colour = f"{row['iterations']:.0f}", "black" if luminance > 0.46 else "white"
    axes.text(column, line, text, ha="center", va="center_baseline", fontsize=6, color=colour)


def _look_up_cause(quantity: str) -> tuple[str, str]:
    """Return the letter and the meaning of a quantity that failed."""
    return DIVERGENCE_CAUSES.get(quantity, (quantity[:1], quantity))


def _add_legend(figure: Figure, table: pd.DataFrame) -> None:
    """Add a legend of grey and hatched cells, if there are any."""
    failed = table.loc[table["outcome"] == "diverged", "quantity"].unique()
    codes = dict(_look_up_cause(quantity) for quantity in [*DIVERGENCE_CAUSES, *failed] if quantity in failed)
    handles: list[Patch] = [_Letter(letter, **_get_cell_style("diverged")) for letter in codes]
    labels = list(codes.values())
    unfinished = table.loc[table["outcome"] == "not_converged", "iterations"]
    if len(unfinished):
        handles.append(Patch(linewidth=0.5, **_get_cell_style("not_converged")))
        labels.append(f"not converged in {unfinished.max():.0f} iterations")
    if handles:
        figure.legend(
            handles,
            labels,
            title="Grey cells diverged; letters name the quantity that failed first." if codes else None,
            alignment="left",
            handler_map={_Letter: _LetterHandler()},
            loc="outside lower center",
            ncols=2,
            frameon=False,
            fontsize=6.5,
            title_fontsize=6.5,
            handlelength=1.3,
            handleheight=1.1,
            columnspacing=1.2,
        )
