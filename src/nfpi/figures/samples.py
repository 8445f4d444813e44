"""Figure of class-conditional samples of a flow, one column per class and one block of rows per temperature."""

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
    """Sample images of each class at each temperature, with the same noise at all temperatures.

    Args:
        model: trained flow, whose seed determines the noise.
        settings: temperatures, number of classes, and number of images per class and temperature (`noises`).
        device: device of the flow.

    Returns:
        (temperatures · noises, classes, H, W, C), uint8; rows are grouped by temperature.
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
        temperatures: T of each block of rows.
        classes: class of each column.
        noises: number of images per class and temperature, i.e. of rows per block, each with its own noise.

    Raises:
        FigureError: inconsistent numbers of rows or columns, or images that are not pixels.
    """
    texts = [f"{temperature:g}" for temperature in temperatures]
    if noises == 1:
        return draw_image_grid(images, texts, classes, "Temperature $T$", "Class")
    rows = [f"$ε_{{{number}}}$" for number in range(1, 1 + noises)] * len(texts)
    blocks = [f"$T = {text}$" for text in texts]
    return draw_image_grid(images, rows, classes, "", "Class", blocks=blocks, rows_are_math=True)
