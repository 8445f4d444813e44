"""Figure of class-conditional samples of a flow by class and temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from nfpi.config.base import PositiveFloat, PositiveInt
from nfpi.config.settings import Config
from nfpi.figures.drawn import Drawn, FigureInputs, register_figure
from nfpi.figures.image_grid import FlowFigure, draw_image_grid, to_pixels
from nfpi.runs import Layout

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from nfpi.model import ClassConditionalFlow


class SamplesFigure(FlowFigure):
    """Class-conditional samples at several temperatures."""

    title = "samples"
    caption = (
        "Images drawn from the flow by class and, in blocks, by temperature T (z = μ + T Σ^(1/2) ε). Images at the "
        "same place in different blocks have the same noise ε."
    )

    classes: PositiveInt = 10
    """number of classes shown, from the first"""
    noises: PositiveInt = 3
    """images per class and temperature"""
    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the files of the model."""
        return {"model": self.list_model_files(config, layout)}

    def describe(self, config: Config) -> str:
        """Complete the caption with the run."""
        return f"{self.caption} {self.describe_run(config)}; images per class and temperature: {self.noises}."


@register_figure("samples", SamplesFigure)
def draw(settings: SamplesFigure, inputs: FigureInputs) -> Drawn:
    """Sample a flow and draw the images.

    Raises:
        Diverged: the fit of the flow's Gaussians diverged.
    """
    from nfpi.model import ClassConditionalFlow
    from nfpi.runtime.device import make_device

    model = ClassConditionalFlow.read(inputs.folder("model")).to(make_device().device)
    images = sample_grid(model, settings.temperatures, settings.classes, settings.noises)
    classes = model.classes[: images.shape[1]]
    return Drawn({"samples": draw_samples(images, settings.temperatures, classes, settings.noises)})


def sample_grid(model: ClassConditionalFlow, temperatures: Sequence[float], classes: int, noises: int) -> np.ndarray:
    """Sample images of each class at each temperature, with the same noise at all temperatures.

    Args:
        model: trained flow, whose seed determines the noise.
        temperatures: T of each block of rows.
        classes: number of classes, from the first; all if the flow has fewer.
        noises: number of images per class and temperature.

    Returns:
        (temperatures · noises, classes, H, W, C), uint8; rows are grouped by temperature.
    """
    import torch

    from nfpi.sampling import sample_images

    num_classes = min(classes, model.prior.num_classes)
    labels = torch.arange(num_classes).repeat(noises)
    rows = []
    for temperature in temperatures:
        ((images, _),) = sample_images(
            model.flow, model.prior, labels, temperature=temperature, seed=model.seed, domain=model.domain
        )
        rows.append(images.unflatten(0, (noises, num_classes)))
    return to_pixels(torch.cat(rows), model.data, model.device)


def draw_samples(images: np.ndarray, temperatures: Sequence[float], classes: Sequence[str], noises: int = 1) -> Figure:
    """Draw images of each class at each temperature, a column for each class, or a row if there are few classes.

    Args:
        images: (temperatures · noises, classes, H, W, C), uint8.
        temperatures: T of each block of rows.
        classes: names of the classes.
        noises: number of images per class and temperature, each with its own noise.

    Raises:
        FigureError: inconsistent numbers of rows or columns, or images that are not pixels.
    """
    labels = [f"{temperature:g}" if number == 0 else "" for temperature in temperatures for number in range(noises)]
    if len(labels) >= 2 * len(classes):
        transposed = images.swapaxes(0, 1)
        return draw_image_grid(transposed, classes, labels, "Class", "Temperature T", columns_per_block=noises)
    return draw_image_grid(images, labels, classes, "Temperature T", "Class", rows_per_block=noises)
