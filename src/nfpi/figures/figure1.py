"""Figure 1: t-SNE of images, and samples of their class Gaussians before and after the fixed-point iteration."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from nfpi.config.base import Name, PositiveFloat, PositiveInt, Seed
from nfpi.config.experiments import FigureSettings
from nfpi.config.priors import FixedPointConfig
from nfpi.config.settings import Config
from nfpi.figures.convergence_map import DIVERGENCE_CAUSES, fit_with_outcome
from nfpi.figures.drawn import Drawn, FigureInputs, list_split_files, register_figure
from nfpi.figures.style import COLUMN_WIDTH, escape_math, format_weight_label, get_class_style, new_figure
from nfpi.runs import Layout

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from nfpi.data.store import ImageSet
    from nfpi.priors.gaussian import GaussianPrior
    from nfpi.priors.statistics import ClassStatistics

COLUMNS = [
    *("dataset", "variant", "panel", "lambda", "outcome", "iterations"),
    *("quantity", "class", "x", "y"),
]
"""Columns of an embedding."""

Variant = Literal["diagonal", "full"]
VARIANTS: tuple[Variant, ...] = ("diagonal", "full")
"""Gaussians with variances, or with full covariances."""

_PANELS = ("images", "data", "small", "large")
_MOST_CLASSES_IN_LEGEND = 20
"""Maximum number of classes for which a legend and marks at the means are drawn."""

_MARKER_SIZES = {"*": 8.0, "P": 6.5, "X": 6.5}
"""Sizes of markers with a smaller interior than the others, in points."""

_FARTHEST = 0.4
"""How far the axes may reach beyond the points of the panels `images` and `data`, as a share of their range."""


class EmbeddingFigure(FigureSettings):
    """Figure 1: t-SNE of images, and samples of their class Gaussians before and after the fixed-point iteration."""

    title = "figure 1"
    caption = (
        "(a) t-SNE of training images (dimensionless axes); (b) samples of Gaussians with the mean and the variances "
        "(figure1) or covariance (figure1_full) of each class in (a); (c) and (d): the same samples after the "
        "fixed-point iteration from (b), with a small and a large λ. Dots: images or samples, a colour for each "
        "class; open marks: class means; dashed ellipses: two standard deviations of (b); area × x to y: "
        "smallest and largest ratio, over the classes, of the area of a class's ellipse (not drawn) to that in (b). "
        "All panels have the same axes. figure1: the released update of diagonal covariances, without "
        "`pooled_mean_gaps`; its result depends on the scale of the embedding, and therefore on the number of "
        "images: compare λ only at equal numbers of images. figure1_full: full covariances and the exact update of "
        "Proposition 1, whose loss is bounded below only for λ up to K α e^(1/α) / 2 (55 for K = 10 classes and α = "
        "10); the panel of a diverged fit names its cause."
    )
    pictures = ("figure1", "figure1_full")
    has_table = True

    dataset: Name
    images: PositiveInt = 5000
    """number of embedded training images"""
    perplexity: PositiveFloat = 30.0
    seed: Seed = 0
    lambdas: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [1e3, 1e5]
    """small and large λ of the released update, without `pooled_mean_gaps`, with diagonal covariances"""
    lambdas_full: Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)] = [50.0, 1e3]
    """small and large λ of the exact update with full covariances; for 10 classes, its loss is bounded below
    up to λ = 55"""
    samples_per_class: Annotated[int, Field(ge=3)] = 200
    """number of samples of each Gaussian; the ellipse and its area are computed from the covariance of the samples"""

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the files of the training images."""
        return {"train": list_split_files(config, layout, self.dataset, "train")}

    def describe(self, config: Config) -> str:
        """Complete the caption with the numbers of images and samples, and the seed."""
        return (
            f"{self.caption} {self.dataset}: up to {self.images} training images, {self.samples_per_class} samples a "
            f"class, perplexity {self.perplexity:g}, seed {self.seed}."
        )


@register_figure("figure1", EmbeddingFigure)
def draw(settings: EmbeddingFigure, inputs: FigureInputs) -> Drawn:
    """Embed training images, fit the Gaussians of their classes and draw both variants.

    Raises:
        ValueError: there are too few images.
    """
    from nfpi.data.store import read_image_set

    table = compute_embedding(read_image_set(inputs.folder("train")), settings)
    pictures = {"figure1": draw_gaussians(table, "diagonal"), "figure1_full": draw_gaussians(table, "full")}
    return Drawn(pictures, table)


def embed_images(images: np.ndarray, *, perplexity: float, seed: int) -> np.ndarray:
    """Embed images in the plane by t-SNE (scikit-learn), initialised at their first two principal components.

    Args:
        images: (N, H, W, C).
        perplexity: effective number of neighbours, less than N.
        seed: seed of the randomized PCA.

    Returns:
        (N, 2), float64, dimensionless.

    Raises:
        ValueError: the perplexity is not less than N.
    """
    from sklearn.manifold import TSNE

    from nfpi.runtime.randomness import derive_seed

    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=derive_seed(seed, "t-SNE") % 2**32)
    embedded: np.ndarray = tsne.fit_transform(images.reshape(len(images), -1).astype(np.float32))
    return embedded.astype(np.float64)


def compute_embedding(image_set: ImageSet, settings: EmbeddingFigure) -> pd.DataFrame:
    """Embed images, and sample their class Gaussians before and after the fit.

    The panel `images` (variant `both`) is the embedding. Each variant has the panels `data`, Gaussians with the class
    moments of the embedding, and `small` and `large`, the Gaussians fitted to them with the small and the large λ:

    - `diagonal`: variances by the update of the released code without its pooled mean gaps, as in the authors' notebook
      of this figure;
    - `full`: covariances by the exact update. The loss that it minimises, whose gradient is that of Eq. 4 with constant
      π, is not bounded below for λ > K α e^{1/α} / 2, which is 55 for ten classes and α = 10; few fits with a
      larger λ converge.

    All samples are drawn with the same noise, so that a sample can be followed from one panel to the next.

    Args:
        image_set: training images, of which `settings.images` are taken at random, or all if there are fewer.
        settings: settings of the figure.

    Returns:
        A frame with the columns :data:`COLUMNS` and one row per point; a panel whose fit diverged is one row without a
        point.

    Raises:
        ValueError: there are fewer than three images of a class, or no more images than the perplexity.
    """
    import pandas as pd
    import torch

    from nfpi.priors.statistics import ClassStatistics
    from nfpi.runtime.randomness import derive_seed, make_generator
    from nfpi.sampling import balanced_labels

    generator = np.random.default_rng(derive_seed(settings.seed, "embedding", "images"))
    chosen = np.sort(generator.permutation(len(image_set))[: settings.images])
    labels = image_set.labels[chosen]
    counts = np.bincount(labels, minlength=image_set.num_classes)
    if counts.min() < 3:  # two points have a singular covariance
        name, received = image_set.classes[counts.argmin()], counts.min()
        raise ValueError(f"class {name}: expected at least 3 of the chosen images, received {received}")
    points = embed_images(image_set.images[chosen], perplexity=settings.perplexity, seed=settings.seed)

    def tabulate(points: np.ndarray, labels: np.ndarray, **cells: Any) -> pd.DataFrame:
        order = np.argsort(labels, kind="stable")
        names = [image_set.classes[label] for label in labels[order]]
        return pd.DataFrame({**cells, "class": names, "x": points[order, 0], "y": points[order, 1]})

    panels = [tabulate(points, labels, variant="both", panel="images")]
    drawn = balanced_labels(image_set.num_classes, settings.samples_per_class)
    for variant in VARIANTS:
        statistics = ClassStatistics.from_latents(
            torch.from_numpy(points), torch.from_numpy(labels), image_set.num_classes, variant == "full"
        )
        for panel, outcome, prior in _fit_gaussians(statistics, variant, settings, image_set.classes):
            cells = {"variant": variant, "panel": panel, **outcome}
            if prior is None:
                panels.append(pd.DataFrame([cells]))
                continue
            samples = prior.sample(drawn, generator=make_generator("cpu", settings.seed, "embedding", "samples"))
            panels.append(tabulate(samples.numpy(), drawn.numpy(), **cells))
    table = pd.concat(panels, ignore_index=True)
    table = table.assign(dataset=image_set.meta["name"]).reindex(columns=COLUMNS)
    return table.astype({"iterations": "Int64"})


def _fit_gaussians(
    statistics: ClassStatistics, variant: Variant, settings: EmbeddingFigure, classes: list[str]
) -> Iterator[tuple[str, dict[str, Any], GaussianPrior | None]]:
    """Yield name, outcome and Gaussians (None if the fit diverged) of the panels of a variant."""
    from nfpi.priors.gaussian import GaussianPrior

    statistics.check()
    variance = None if variant == "full" else statistics.variance
    yield "data", {"lambda": 0.0}, GaussianPrior(statistics.mean, variance, statistics.covariance)
    update: Literal["exact", "released"] = "exact" if variant == "full" else "released"
    weights = settings.lambdas_full if variant == "full" else settings.lambdas
    for panel, weight in zip(("small", "large"), weights, strict=True):
        config = FixedPointConfig(weight=weight, update=update, pooled_mean_gaps=False)
        yield panel, *fit_with_outcome(statistics, config, None, classes)


def draw_gaussians(table: pd.DataFrame, variant: Variant) -> Figure:
    """Draw embedded images, samples of their class Gaussians, and samples of the Gaussians fitted with two λ.

    The four panels have the same axes. Dots are images or samples; open markers at the means identify the classes. In
    the panels of fitted Gaussians, dashed ellipses show two standard deviations of the samples before the fit.

    Args:
        table: table with the columns :data:`COLUMNS`.
        variant: Gaussians with variances (diagonal) or with full covariances.
    """
    import pandas as pd
    from matplotlib.ticker import MaxNLocator

    shown = table[table["variant"].isin(["both", variant])]
    panels = [shown[shown["panel"] == name] for name in _PANELS]
    classes = panels[0]["class"].unique().tolist()
    x_limits, y_limits = _compute_limits(shown, pd.concat(panels[:2]))
    ratio = float(np.diff(y_limits)[0] / np.diff(x_limits)[0])
    columns = max(1, min(len(classes), int(COLUMN_WIDTH / (0.17 + 0.05 * max(map(len, classes))))))
    legend_rows = -(-len(classes) // columns) if len(classes) <= _MOST_CLASSES_IN_LEGEND else 0
    height = 2 * (1.38 * ratio + 0.2) + 0.4 + (0.16 + 0.12 * legend_rows if legend_rows else 0)
    with new_figure(height, layout={"w_pad": 0.02, "h_pad": 0.02, "compress": True}) as figure:
        grid = figure.subplots(2, 2, sharex=True, sharey=True)
        for letter, name, axes, rows in zip("abcd", _PANELS, grid.flat, panels, strict=True):
            axes.set(xlim=x_limits, ylim=y_limits, aspect="equal")
            before = panels[1] if name in ("small", "large") else None
            _draw_panel(axes, rows, classes, before)
            axes.set_title(f"({letter}) {_compose_title(name, rows, before)}", loc="left", fontsize=6.5, pad=3)
            axes.set_xlabel("t-SNE 1", fontsize=7, labelpad=1)
            axes.set_ylabel("t-SNE 2", fontsize=7, labelpad=1)
            axes.label_outer()
        for axis in (grid[0, 0].xaxis, grid[0, 0].yaxis):
            axis.set_major_locator(MaxNLocator(4))
        if legend_rows:
            _add_legend(figure, classes, columns, shown["dataset"].iloc[0])
    return figure


def _compute_limits(shown: pd.DataFrame, reference: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return limits in x and y around all points not far from the reference, with a bounded aspect ratio."""
    places = ["x", "y"]
    low, high = reference[places].min(), reference[places].max()
    reach = _FARTHEST * (high - low)
    low, high = (low - reach).clip(lower=shown[places].min()), (high + reach).clip(upper=shown[places].max())
    margin = (0.03 * (high - low)).replace(0.0, 1.0)
    (left, bottom), (right, top) = low - margin, high + margin
    short_by = [(top - bottom) / 1.2 - (right - left), 0.6 * (right - left) - (top - bottom)]
    more_x, more_y = (max(0.0, missing) / 2 for missing in short_by)
    return (left - more_x, right + more_x), (bottom - more_y, top + more_y)


def _draw_panel(axes: Axes, rows: pd.DataFrame, classes: list[str], before: pd.DataFrame | None) -> None:
    """Draw points in random order (so that no class hides others), their means, and ellipses of the points `before`.

    A text counts the points outside the axes.
    """
    axes.tick_params(labelsize=6, length=2, pad=2)
    row = rows.iloc[0]
    if row["outcome"] == "diverged":
        _, meaning = DIVERGENCE_CAUSES.get(row["quantity"], ("", row["quantity"]))
        text = f"diverged at iteration {row['iterations']:.0f}:\n{meaning}\n(class {escape_math(row['class'])})"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=6.5, color="0.3", transform=axes.transAxes)
        return
    shuffled = rows.iloc[np.random.default_rng(0).permutation(len(rows))]
    colours = [get_class_style(classes.index(name))[0] for name in shuffled["class"]]
    axes.scatter(shuffled["x"], shuffled["y"], s=1.2, c=colours, linewidths=0, rasterized=True, zorder=3)
    if before is not None:
        for name, own in before.groupby("class", sort=False):
            _add_ellipse(axes, own[["x", "y"]].to_numpy(), get_class_style(classes.index(str(name)))[0])
    if len(classes) <= _MOST_CLASSES_IN_LEGEND:
        for index, name in enumerate(classes):
            axes.plot(*rows.loc[rows["class"] == name, ["x", "y"]].mean(), **_get_mean_style(index), zorder=4)
    is_inside = rows["x"].between(*axes.get_xlim()) & rows["y"].between(*axes.get_ylim())
    if not is_inside.all():
        text = f"{(~is_inside).sum()} of {len(rows)} samples outside"
        place: dict[str, Any] = {"ha": "right", "va": "bottom", "transform": axes.transAxes, "zorder": 5}
        axes.text(0.98, 0.02, text, fontsize=5.5, color="0.3", **place)


def _add_ellipse(axes: Axes, points: np.ndarray, colour: str) -> None:
    """Draw the ellipse of two standard deviations of points (N, 2)."""
    from matplotlib.patches import Ellipse

    variances, directions = np.linalg.eigh(np.cov(points.T))
    size, angle = 4 * np.sqrt(variances.clip(min=0)), math.degrees(math.atan2(directions[1, 0], directions[0, 0]))
    style: dict[str, Any] = {"fill": False, "edgecolor": colour, "linestyle": (0, (3, 2)), "linewidth": 0.5}
    axes.add_patch(Ellipse(points.mean(0), *size, angle=angle, zorder=2, **style))


def _get_mean_style(index: int) -> dict[str, Any]:
    """Return the style of an open marker, through which small clusters stay visible, with a thin white rim."""
    from matplotlib.patheffects import withStroke

    _, marker = get_class_style(index)
    size, rim = _MARKER_SIZES.get(marker, 5.5), [withStroke(linewidth=0.9, foreground="white")]
    edge = {"markeredgecolor": "black", "markeredgewidth": 0.5}
    return {"marker": marker, "markersize": size, "fillstyle": "none", "linestyle": "none", "path_effects": rim, **edge}


def _compose_title(name: str, rows: pd.DataFrame, before: pd.DataFrame | None) -> str:
    """Return the title of a panel, without its letter."""
    if before is None:
        return f"{len(rows)} images" if name == "images" else "Gaussians, $λ = 0$"
    row = rows.iloc[0]
    weight = f"$λ =$ {format_weight_label(row['lambda'])}"
    if row["outcome"] == "diverged":
        return f"{weight}, diverged\n"
    iterations = f"{'' if row['outcome'] == 'converged' else '> '}{row['iterations']:.0f} iterations"
    ratios = _compute_areas(rows) / _compute_areas(before)
    texts = dict.fromkeys(f"{ratio:.2g}" for ratio in (ratios.min(), ratios.max()))
    return f"{weight}, {iterations}\narea × {' to '.join(texts)}"


def _compute_areas(rows: pd.DataFrame) -> pd.Series:
    """Return the area of the ellipse of each class, up to a factor."""
    by_class = rows.groupby("class")[["x", "y"]]
    return by_class.apply(lambda points: math.sqrt(np.linalg.det(np.cov(points.to_numpy().T))))


def _add_legend(figure: Figure, classes: list[str], columns: int, title: str) -> None:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"marker": "o", "markersize": 2.5, "markeredgewidth": 0, "linestyle": "none"}
    marks: list[Any] = [
        (Line2D([], [], color=get_class_style(index)[0], **dot), Line2D([], [], **_get_mean_style(index)))
        for index in range(len(classes))
    ]
    labels = list(map(escape_math, classes))
    close = {"handletextpad": 0.1, "columnspacing": 0.9, "labelspacing": 0.3, "borderpad": 0.1}
    figure.legend(marks, labels, loc="outside lower center", title=title, ncols=columns, fontsize=6.5, **close)
