"""Draw discs, squares and triangles to try `nfpi new` on: `python examples/draw_pictures.py FOLDER`.

Their size, place, direction and colours vary; each has shades and noise.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("disc", "square", "triangle")


def draw_picture(shape: str, size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw a shape of one colour on a ground of another, (size, size, 3), uint8."""
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
    inside = np.clip(0.5 - distance * size, 0, 1)[..., None]
    noise = generator.normal(0, 10, (size, size, 3))
    return (shaded * (1 - inside) + colour * inside + noise).clip(0, 255).astype(np.uint8)


def main() -> None:
    """Write FOLDER/shape/number.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, default=120)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    for shape in SHAPES:
        (options.folder / shape).mkdir(parents=True)
        for number in range(options.per_class):
            picture = draw_picture(shape, 32, generator)
            Image.fromarray(picture).save(options.folder / shape / f"{number:04}.png")


if __name__ == "__main__":
    main()
