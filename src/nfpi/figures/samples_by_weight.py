"""Figure of class-conditional samples of flows of several λ, as trained and with Gaussians estimated again."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any

from pydantic import Field

from nfpi.config.base import UNIQUE, Name, NonNegativeFloat, PositiveFloat, PositiveInt
from nfpi.config.experiments import Refit
from nfpi.config.figures import FigureSettings
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, register_figure
from nfpi.figures.image_grid import draw_image_grid
from nfpi.figures.samples import SamplesFigure, sample_grid
from nfpi.results.tables.table import typeset_weight
from nfpi.runs import MODEL_FILES, Layout


class SamplesByWeightFigure(FigureSettings):
    """Class-conditional samples of the flows of several λ, trained with the first seed."""

    title = "samples by λ"
    caption = (
        "Images drawn from flows, a column for each class and a row for each λ, without and with a refit, which "
        "estimates the Gaussians again after the training. All rows have the same noise ε (z = μ + T Σ^(1/2) ε)."
    )
    uses_gpu = True

    dataset: Name
    flow: Name = "mef"
    prior: Name = "fpi"
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=1), UNIQUE]
    refits: Annotated[list[Refit | None], Field(min_length=1), UNIQUE] = [None, "moments"]
    """refits of the rows of each λ, see `refit` of experiments"""
    classes: PositiveInt = 10
    """number of classes shown, from the first"""
    temperature: PositiveFloat = 1.0

    @property
    def rows(self) -> list[tuple[float, Refit | None]]:
        """λ and refit of each row."""
        return list(product(self.lambdas, self.refits))

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the files of the models."""
        of_run = (self.dataset, self.flow, self.prior)
        runs = [config.run(*of_run, weight, config.seeds[0], refit) for weight, refit in self.rows]
        return {"models": [f"{layout.of(run)}/model/{name}" for run in runs for name in MODEL_FILES.values()]}

    def describe(self, config: Config) -> str:
        """Complete the caption with the runs."""
        runs = f"{self.dataset}, {self.flow}, {self.prior}, seed {config.seeds[0]}"
        return f"{self.caption} {runs}, temperature T = {self.temperature:g}."


@register_figure("samples_by_weight", SamplesByWeightFigure)
def draw(settings: SamplesByWeightFigure, inputs: FigureInputs) -> Drawn:
    """Sample the flows and draw the images.

    Raises:
        Diverged: the fit of a flow's Gaussians diverged.
    """
    import numpy as np

    from nfpi.model.trained import TrainedFlow
    from nfpi.runtime.device import make_device

    models = [TrainedFlow.read(folder) for folder in dict.fromkeys(file.parent for file in inputs.files["models"])]
    grid: dict[str, Any] = {"temperatures": [settings.temperature], "classes": settings.classes, "noises": 1}
    one_flow = SamplesFigure.model_validate({"dataset": settings.dataset, **grid})
    images = np.concatenate([sample_grid(model, one_flow, make_device().device) for model in models])
    labels = [f"λ = {typeset_weight(weight)}" + (", refit" if refit else "") for weight, refit in settings.rows]
    columns = models[0].classes[: images.shape[1]]
    figure = draw_image_grid(images, labels, columns, "", "Class", rows_per_block=len(settings.refits))
    return Drawn({"samples_by_weight": figure})
