"""Colour pictures drawn for tests: discs, squares and triangles of varied size, place, direction and colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("disc", "square", "triangle")


def draw_pictures(per_class: int = 120, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw images (N, size, size, 3), uint8, and labels (N,), indices of `SHAPES`."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(SHAPES)), per_class)
    return np.stack([_draw(SHAPES[label], size, generator) for label in labels]), labels


def write_pictures(folder: Path, per_class: int = 120, size: int = 32, seed: int = 0) -> Path:
    """Write `folder`/class/number.png, and return the folder."""
    images, labels = draw_pictures(per_class, size, seed)
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / SHAPES[label] / f"{number:04}.png")
    return folder


def _draw(shape: str, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw one picture: a shape of one colour on a shaded ground of another, with noise."""
    angle, radius = generator.normal(0, 0.2), generator.uniform(0.22, 0.36)
    x, y = np.meshgrid(*2 * [(np.arange(size) + 0.5) / size])
    across, along = (grid - generator.uniform(0.4, 0.6) for grid in (x, y))
    u, v = across * np.cos(angle) + along * np.sin(angle), along * np.cos(angle) - across * np.sin(angle)
    distance = {
        "disc": np.hypot(u, v) - radius,
        "square": np.maximum(abs(u), abs(v)) - 0.88 * radius,
        "triangle": np.maximum(-v, 0.87 * abs(u) + 0.5 * v) - 0.8 * radius,
    }[shape]
    ground, colour = generator.uniform(40, 215, (2, 3))
    slope = generator.normal(0, 40, (2, 3))
    shaded = ground + across[..., None] * slope[0] + along[..., None] * slope[1]
    mask = np.clip(0.5 - distance * size, 0, 1)[..., None]
    noise = generator.normal(0, 10, (size, size, 3))
    return (shaded * (1 - mask) + colour * mask + noise).clip(0, 255).astype(np.uint8)
