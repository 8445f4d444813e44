"""Class-conditional samples of a flow, a column for each class and a row for each temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from nfpi.config.figures import SamplesFigure
from nfpi.figures.drawn import Drawn, FigureInputs
from nfpi.figures.image_grid import draw_image_grid, to_pixels
from nfpi.model import ClassConditionalFlow
from nfpi.runtime.devices import make_device
from nfpi.sampling import sample_images


def draw(settings: SamplesFigure, inputs: FigureInputs) -> Drawn:
    """Sample a flow and draw the images.

    Raises:
        Diverged: the fit of the flow's Gaussians diverged.
    """
    model = ClassConditionalFlow.from_pretrained(inputs.folder("model"))
    images = sample_grid(model, settings, make_device().device)
    return Drawn({"samples": draw_samples(images, settings.temperatures, model.classes[: images.shape[1]])})


def sample_grid(model: ClassConditionalFlow, settings: SamplesFigure, device: torch.device) -> np.ndarray:
    """Sample an image of each class at each temperature, from the same noise at all temperatures.

    Args:
        model: whose seed gives the noise.
        settings: temperatures, and how many classes are shown, the first ones.
        device: where the flow is inverted.

    Returns:
        (temperatures, classes, H, W, C), uint8.
    """
    labels = torch.arange(min(settings.classes, model.prior.num_classes))
    flow = model.flow.to(device)
    rows = []
    for temperature in settings.temperatures:
        ((images, _),) = sample_images(
            flow,
            model.prior,
            labels,
            temperature=temperature,
            seed=model.seed,
            batch_size=len(labels),
            domain=model.domain,
            device=device,
        )
        rows.append(images)
    return to_pixels(torch.stack(rows), model.data, device)


def draw_samples(images: np.ndarray, temperatures: Sequence[float], classes: Sequence[str]) -> Figure:
    """Draw an image of each class at each temperature.

    Args:
        images: (temperatures, classes, H, W, C), uint8.
        temperatures: T of the rows.
        classes: names of the columns.

    Raises:
        FigureError: the numbers of rows or columns do not fit, or the images are not pixels.
    """
    return draw_image_grid(
        images, [f"{temperature:g}" for temperature in temperatures], classes, "Temperature $T$", "Class"
    )
