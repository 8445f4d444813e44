"""Figures of flows of several λ: class-conditional samples, without and with a refit, and latents of test images."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from nfpi.config.base import UNIQUE, NonNegativeFloat, PositiveFloat, PositiveInt
from nfpi.config.experiments import Refit
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, RunFigure, list_split_files, register_figure
from nfpi.figures.figure1 import embed_images
from nfpi.figures.image_grid import draw_image_grid, to_pixels
from nfpi.figures.samples import sample_grid
from nfpi.figures.style import COLUMN_WIDTH, LEGEND_HEIGHT, escape_math, get_class_style, new_figure
from nfpi.results.numbers import typeset_weight
from nfpi.runs import MODEL_FILES, Layout
from nfpi.runtime.divergence import Diverged

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from nfpi.data.store import ImageSet
    from nfpi.model import ClassConditionalFlow

    Models = dict[tuple[float, Refit | None], ClassConditionalFlow]

_PERPLEXITY = 30
"""effective number of neighbours of t-SNE; of few images, a third of them"""


_COLUMNS = 10
"""number of columns of samples that are filled"""


class SamplesByWeightFigure(RunFigure):
    """Class-conditional samples and latents of the flows of several λ, trained with the first seed."""

    title = "samples and latents by λ"
    caption = (
        "samples_by_weight: test images, and images drawn from flows, columns for each class and a row for each λ "
        "whose fit converged, without and with a refit, which estimates the Gaussians again after the training. All "
        "rows have the same noise ε (z = μ + T Σ^(1/2) ε). latents_by_weight: t-SNE of the latents of test images "
        "under these flows, coloured by class."
    )
    pictures = ("samples_by_weight", "latents_by_weight")
    uses_gpu = True

    lambdas: Annotated[list[NonNegativeFloat], UNIQUE] = []
    relative_weights: Annotated[list[NonNegativeFloat], UNIQUE] = []
    """s₀ in place of `lambdas`, see `relative_weights` of experiments"""
    refits: Annotated[list[Refit | None], Field(min_length=1), UNIQUE] = [None, "moments"]
    """refits of the rows of each λ, see `refit` of experiments"""
    classes: PositiveInt = 10
    """number of classes shown, from the first"""
    temperature: PositiveFloat = 1.0
    images: PositiveInt = 1000
    """number of test images whose latents are shown"""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if bool(self.lambdas) == bool(self.relative_weights):
            raise ValueError("lambdas, relative_weights: expected one of them, received both or neither")
        return self

    @property
    def rows(self) -> list[tuple[float, Refit | None]]:
        """λ and refit of each row."""
        return list(product(self.lambdas, self.refits))

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the files of the models and of the test images."""
        of_run = (self.dataset, self.flow, self.prior)
        runs = [config.run(*of_run, weight, config.seeds[0], refit) for weight, refit in self.rows]
        models = [f"{layout.of(run)}/model/{name}" for run in runs for name in MODEL_FILES.values()]
        return {"models": models, "test": list_split_files(config, layout, self.dataset, "test")}

    def describe(self, config: Config) -> str:
        """Complete the caption with the runs."""
        runs = f"{self.dataset}, {self.flow}, {self.prior}, seed {config.seeds[0]}"
        return f"{self.caption} {runs}, temperature T = {self.temperature:g}."


@register_figure("samples_by_weight", SamplesByWeightFigure)
def draw(settings: SamplesByWeightFigure, inputs: FigureInputs) -> Drawn:
    """Sample the flows whose fit converged, and embed latents of test images.

    Raises:
        Diverged: the fits of all flows diverged.
    """
    from nfpi.data.store import read_image_set
    from nfpi.model import ClassConditionalFlow
    from nfpi.runtime.device import make_device

    device = make_device().device
    folders = dict.fromkeys(file.parent for file in inputs.files["models"])
    models: Models = {}
    for row, folder in zip(settings.rows, folders, strict=True):
        try:
            models[row] = ClassConditionalFlow.read(folder).to(device)
        except Diverged as error:
            fault = error
    if not models:
        raise fault
    test = read_image_set(inputs.folder("test"))
    latents = {
        weight: embed_latents(model, test, settings.images)
        for (weight, refit), model in models.items()
        if refit == settings.refits[0]
    }
    pictures = [draw_samples(settings, models, test), draw_latents(latents, test)]
    return Drawn(dict(zip(settings.pictures, pictures, strict=True)))


def draw_samples(settings: SamplesByWeightFigure, models: Models, test: ImageSet) -> Figure:
    """Draw the first test images of each class, and below them a row of samples for each model.

    A class has one column, or as many as ten columns have room for.
    """
    import numpy as np
    import torch

    any_model = next(iter(models.values()))
    classes = any_model.classes[: settings.classes]
    fewest = np.bincount(test.labels)[: len(classes)].min()
    noises = max(1, min(_COLUMNS // len(classes), int(fewest)))
    samples = [sample_grid(model, [settings.temperature], len(classes), noises) for model in models.values()]
    first = np.concatenate([np.flatnonzero(test.labels == label)[:noises] for label in range(len(classes))])
    real = to_pixels(torch.from_numpy(test.images[first]).permute(0, 3, 1, 2)[None], any_model.data, any_model.device)
    rows = np.concatenate([real, *(grid.swapaxes(0, 1).reshape(real.shape) for grid in samples)])
    labels = [f"λ = {typeset_weight(weight)}" + (", refit" if refit else "") for weight, refit in models]
    columns = [name if number == 0 else "" for name in classes for number in range(noises)]
    return draw_image_grid(rows, ["test images", *labels], columns, "", "Class", columns_per_block=noises)


def embed_latents(model: ClassConditionalFlow, images: ImageSet, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Embed the latents of images chosen at random in the plane by t-SNE.

    Returns:
        Points (N, 2) and labels (N,), with N at most `count`.
    """
    import numpy as np

    chosen = np.random.default_rng(0).permutation(len(images))[:count]
    latents = model.encode(images.images[chosen])
    points = embed_images(latents, perplexity=min(_PERPLEXITY, len(chosen) / 3), seed=model.seed)
    return points, images.labels[chosen]


def draw_latents(latents: dict[float, tuple[np.ndarray, np.ndarray]], images: ImageSet) -> Figure:
    """Draw embedded latents, a panel for each λ, coloured by class."""
    side = min(COLUMN_WIDTH / len(latents), COLUMN_WIDTH / 2)
    with new_figure(side + LEGEND_HEIGHT + 0.2, layout={"w_pad": 0.02, "h_pad": 0.02}) as figure:
        panels = figure.subplots(1, len(latents), squeeze=False)[0]
        for axes, (weight, (points, labels)) in zip(panels, latents.items(), strict=True):
            axes.scatter(*points.T, s=1.2, c=[get_class_style(label)[0] for label in labels], linewidths=0)
            axes.set_title(f"λ = {typeset_weight(weight)}", fontsize=7)
            axes.set(xticks=[], yticks=[], box_aspect=1)
        for label, name in enumerate(images.classes[:10]):
            figure.axes[0].scatter([], [], s=8, c=get_class_style(label)[0], label=escape_math(name))
        figure.legend(loc="outside lower center", ncols=5, fontsize=5.5, columnspacing=0.8, handletextpad=0)
    return figure
