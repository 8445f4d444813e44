"""Class-conditional samples of a flow: a column for each class, a block of rows for each temperature."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from nfpi.config.figures import SamplesFigure
from nfpi.figures.drawn import Drawn, FigureInputs
from nfpi.figures.image_grid import draw_image_grid, to_pixels
from nfpi.model.trained import TrainedFlow
from nfpi.runtime.devices import make_device
from nfpi.sampling import sample_images


def draw(settings: SamplesFigure, inputs: FigureInputs) -> Drawn:
    """Sample a flow and draw the images.

    Raises:
        Diverged: the fit of the flow's Gaussians diverged.
    """
    model = TrainedFlow.read(inputs.folder("model"))
    images = sample_grid(model, settings, make_device().device)
    classes = model.classes[: images.shape[1]]
    return Drawn({"samples": draw_samples(images, settings.temperatures, classes, settings.noises)})


def sample_grid(model: TrainedFlow, settings: SamplesFigure, device: torch.device) -> np.ndarray:
    """Sample images of each class at each temperature, from the same noises at all temperatures.

    Args:
        model: whose seed gives the noises.
        settings: temperatures, noises, and how many classes are shown, the first ones.
        device: where the flow is inverted.

    Returns:
        (temperatures · noises, classes, H, W, C), uint8: all noises of the first temperature, then those of the next.
    """
    num_classes = min(settings.classes, model.prior.num_classes)
    labels = torch.arange(num_classes).repeat(settings.noises)
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
        rows.append(images.unflatten(0, (settings.noises, num_classes)))
    return to_pixels(torch.cat(rows), model.data, device)


def draw_samples(images: np.ndarray, temperatures: Sequence[float], classes: Sequence[str], noises: int = 1) -> Figure:
    """Draw images of each class at each temperature.

    Args:
        images: (temperatures · noises, classes, H, W, C), uint8.
        temperatures: T of the blocks of rows.
        classes: names of the columns.
        noises: rows of a block.

    Raises:
        FigureError: the numbers of rows or columns do not fit, or the images are not pixels.
    """
    texts = [f"{temperature:g}" for temperature in temperatures]
    if noises == 1:
        return draw_image_grid(images, texts, classes, "Temperature $T$", "Class")
    rows = [f"$ε_{{{number}}}$" for number in range(1, 1 + noises)] * len(texts)
    return draw_image_grid(images, rows, classes, "", "Class", blocks=[f"$T = {text}$" for text in texts])
