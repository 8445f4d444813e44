"""Map of the convergence of the fixed-point iteration, by λ, update, scale and fitted moments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from nfpi.config.base import Name, NonNegativeFloat, PositiveFloat
from nfpi.config.experiments import FigureSettings
from nfpi.config.priors import FixedPointConfig, FixedPointSettings
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, register_figure
from nfpi.figures.style import format_weight_label, new_figure
from nfpi.runs import INITIAL, INITIAL_FILES, Layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nfpi.priors.gaussian import GaussianPrior
    from nfpi.priors.statistics import ClassStatistics

COLUMNS = [
    *("dataset", "alpha", "fitted", "update", "scale", "lambda"),
    *("outcome", "iterations", "quantity", "class"),
]
"""Columns of a map of convergence."""

DIVERGENCE_CAUSES = {
    "A (not positive definite)": ("A", "matrix A not positive"),
    "repulsion kernel": ("κ", "kernel κ not finite"),
    "KLDs (below rounding error)": ("r", "KLDs below rounding error"),
    "mean": ("μ", "mean μ not finite"),
    "variance": ("v", "variance v not positive"),
}
"""Letter and meaning of each quantity whose failure may end a diverging iteration with diagonal covariances."""

_FITTED = {
    "both": (True, True, "$μ$ and $Σ$"),
    "mean": (True, False, "$μ$ only, $Σ = I$"),
    "variance": (False, True, "$Σ$ only"),
}
"""Whether means and variances are fitted, and the title of the panel."""


class ConvergenceFigure(FigureSettings):
    """Map of the convergence of the fixed-point iteration on initial latents: λ × update × scale × fitted moments."""

    title = "map of convergence"
    caption = (
        "Iterations until the Gaussians of the latents of an initial state converge, by the weight λ of the repulsion, "
        "the update, the scale π of the divergences (Eqs. 9, 10) and what is fitted; if only means are fitted, Σ = I. "
        "Grey cells diverged, and the letter names the quantity that failed first: "
        f"{'; '.join(map(': '.join, DIVERGENCE_CAUSES.values()))}. "
        f"Hatched cells did not converge in {FixedPointSettings().max_iterations} iterations."
    )
    has_table = True

    dataset: Name
    flow: Name = "mef"
    alpha: PositiveFloat = 10.0
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=1)] = [
        *(1e2, 3e2, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6),
    ]

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the statistics of the latents of an initial state (start: data), and its Gaussians."""
        where = {"dataset": self.dataset, "flow": self.flow, "start": "data", "seed": str(config.seeds[0])}
        folder = layout.path(INITIAL, **where)
        statistics, initial = (f"{folder}/{INITIAL_FILES[name]}" for name in ("statistics", "prior"))
        return {"statistics": [statistics], "initial": [initial]}

    def describe(self, config: Config) -> str:
        """Complete the caption with the initial state."""
        return f"{self.caption} {self.dataset}, {self.flow}, α = {self.alpha:g}, seed {config.seeds[0]}."


@register_figure("convergence_map", ConvergenceFigure)
def draw(settings: ConvergenceFigure, inputs: FigureInputs) -> Drawn:
    """Fit the Gaussians of an initial state with all combinations of settings, and map the outcomes."""
    import pandas as pd
    from tqdm import tqdm

    from nfpi.priors.files import load_prior, load_statistics

    statistics = load_statistics(inputs.file("statistics"))
    initial, _ = load_prior(inputs.file("initial"))
    fits = compute_convergence(statistics, initial, settings)
    table = pd.DataFrame(list(tqdm(fits, desc="map convergence", unit="fit", disable=None)), columns=COLUMNS)
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
    unit = type(initial)(initial.mean, initial.mean.new_ones(initial.mean.shape))
    weights = sorted(set(settings.lambdas))
    for fitted, update, scale, weight in product(_FITTED, ("released", "exact"), ("pairwise", "average"), weights):
        fit_mean, fit_variance, _ = _FITTED[fitted]
        kind: dict[str, Any] = {"alpha": settings.alpha, "update": update, "scale": scale}
        config = FixedPointConfig(weight=weight, fit_mean=fit_mean, fit_variance=fit_variance, **kind)
        outcome, _ = fit_with_outcome(statistics, config, initial if fit_variance else unit)
        yield {"dataset": settings.dataset, "fitted": fitted, **kind, **outcome}


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
    from nfpi.priors.fixed_point import FixedPointDiverged, fit_fixed_point

    cells: dict[str, Any] = {"lambda": config.weight}
    try:
        result = fit_fixed_point(statistics, config, initial)
    except FixedPointDiverged as fault:
        name = classes[fault.class_index] if classes else str(fault.class_index)
        cells |= {"outcome": "diverged", "iterations": fault.iteration, "quantity": fault.quantity, "class": name}
        return cells, None
    outcome = "converged" if result.converged else "not_converged"
    return {**cells, "outcome": outcome, "iterations": result.iterations}, result.prior


def draw_convergence_map(table: pd.DataFrame) -> Figure:
    """Draw the number of iterations to convergence by λ, update, scale π, and fitted moments.

    Colour and number show the iterations; hatched cells did not converge within the maximum number; grey cells
    diverged, and their letter names the quantity that failed first.

    Args:
        table: table with the columns :data:`COLUMNS`.
    """
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    weights = sorted(table["lambda"].unique())
    groups = [(name, table[table["fitted"] == name]) for name in _FITTED if (table["fitted"] == name).any()]
    kinds = [list(dict.fromkeys(zip(rows["update"], rows["scale"], strict=True))) for _, rows in groups]
    shades = ScalarMappable(LogNorm(1, 1000), matplotlib.colormaps["viridis"].reversed())
    note = _explain_failures(table)
    height = 0.17 * sum(map(len, kinds)) + 0.2 * len(groups) + 1.1 + 0.1 * len(note.splitlines())
    with new_figure(height, layout={"h_pad": 0.02, "w_pad": 0.02}) as figure:
        grid = figure.subplots(len(groups), 1, sharex=True, squeeze=False, height_ratios=[len(k) for k in kinds])[:, 0]
        for axes, (name, rows), kind in zip(grid, groups, kinds, strict=True):
            for row in rows.to_dict("records"):
                place = (weights.index(row["lambda"]), kind.index((row["update"], row["scale"])))
                _draw_cell(axes, place, row, shades)
            axes.set(xlim=(-0.5, len(weights) - 0.5), ylim=(len(kind) - 0.5, -0.5))
            axes.set_yticks(range(len(kind)), [f"{update}, {scale} π" for update, scale in kind])
            axes.set_title(_FITTED[name][2], loc="left", fontsize=7, pad=2)
            axes.tick_params(length=0, labelsize=6)
            axes.spines[:].set_visible(False)
        rotation = 90 if len(weights) > 6 else 0
        grid[-1].set_xticks(range(len(weights)), [format_weight_label(weight) for weight in weights], rotation=rotation)
        grid[-1].set_xlabel("Weight λ of the repulsion", fontsize=7)
        first = table.iloc[0]
        figure.suptitle(f"{first['dataset']}, initial state, α = {first['alpha']:g}", x=0.01, ha="left", fontsize=8)
        bar = figure.colorbar(shades, ax=list(grid), location="bottom", aspect=40, pad=0.02, fraction=0.05)
        bar.set_label("Iterations to convergence", fontsize=7)
        bar.ax.tick_params(labelsize=6)
        bar.ax.xaxis.set_major_formatter("{x:g}")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=6)
    return figure


def _explain_failures(table: pd.DataFrame) -> str:
    """Explain the grey cells with their letters and the hatched ones, as far as there are any."""
    failed = table.loc[table["outcome"] == "diverged", "quantity"].unique()
    causes = [": ".join(DIVERGENCE_CAUSES.get(quantity, (quantity[:1], quantity))) for quantity in failed]
    unfinished = table.loc[table["outcome"] == "not_converged", "iterations"]
    parts = [f"Grey: diverged ({', '.join(causes)})."] if causes else []
    parts += [f"Hatched: not converged in {unfinished.max():.0f} iterations."] if len(unfinished) else []
    return textwrap.fill(" ".join(parts), 80)


def _draw_cell(axes: Axes, place: tuple[int, int], row: dict[str, Any], shades: Any) -> None:
    from matplotlib.patches import Rectangle

    text, colour = "", "black"
    if row["outcome"] == "diverged":
        style: dict[str, Any] = {"facecolor": "0.85", "edgecolor": "white"}
        text = DIVERGENCE_CAUSES.get(row["quantity"], row["quantity"])[0]
    elif row["outcome"] == "not_converged":
        style = {"facecolor": "white", "edgecolor": "0.5", "hatch": "//////"}
    else:
        text = f"{row['iterations']:.0f}"
        red, green, blue, _ = shade = shades.to_rgba(row["iterations"])
        style = {"facecolor": shade, "edgecolor": "white"}
        if 0.299 * red + 0.587 * green + 0.114 * blue <= 0.46:
            colour = "white"
    column, line = place
    axes.add_patch(Rectangle((column - 0.5, line - 0.5), 1, 1, linewidth=0.5, **style))
    axes.text(column, line, text, ha="center", va="center_baseline", fontsize=6, color=colour)
