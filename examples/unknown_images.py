"""Measure and draw what a generative model of images can do that a classifier cannot.

`python examples/unknown_images.py --output docs/images` fits a model of digits and one of Fashion-MNIST, both at 8×8
pixels, in about two minutes on one core, and writes

- unknown_images.csv and .png: how well bits/dim, and in the table also the distance to the nearest class (typicality)
  and the probability of the predicted class, distinguish images of unknown kinds from test images;
- walk.png: walks between two images of a class, in the latent space and in pixels;

and prints the table, how likely images half way between two of a class are, the accuracy of a support-vector machine
trained on sampled images, and how many class means are likelier than the median test image. Fashion-MNIST is read from
Debian's package `dataset-fashion-mnist`, or from a folder with its four idx files (`--fashion`).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import matplotlib
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from nfpi import ClassConditionalFlow
from nfpi.data.sources.published import find_idx, read_idx
from nfpi.figures.image_grid import draw_image_grid
from nfpi.figures.style import CLASS_COLOURS, COLUMN_WIDTH, STYLE, render_figure

SIDE = 8
STEPS = 9
"""number of images of a walk, both ends included"""


@dataclass(frozen=True)
class Split:
    """Images (N, 8, 8, 1) and labels (N,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Data:
    """1437 images for the fit, of which 20 % are held out to calibrate the model, and 360 for the test."""

    train: Split
    held_out: Split
    test: Split

    @classmethod
    def make(cls, images: np.ndarray, labels: np.ndarray, test: Split) -> Self:
        """Hold images out."""
        train, held_out, *both = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
        return cls(Split(train, both[0]), Split(held_out, both[1]), test)


def read_digits() -> Data:
    """Read scikit-learn's digits."""
    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    train, test, train_labels, test_labels = train_test_split(
        images, digits.target, test_size=0.2, stratify=digits.target, random_state=0
    )
    return Data.make(train, train_labels, Split(test, test_labels))


def read_fashion(folder: Path) -> Data:
    """Read the first images of Fashion-MNIST, resized."""
    found = []
    for split, count in (("train", 1437), ("t10k", 360)):
        images = read_idx(find_idx(folder, f"{split}-images-idx3-ubyte"))[:count]
        small = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]
        labels = read_idx(find_idx(folder, f"{split}-labels-idx1-ubyte"))[:count]
        found.append(Split(np.stack([np.asarray(image)[..., None] for image in small]), labels.astype(np.int64)))
    return Data.make(found[0].images, found[0].labels, found[1])


def fit_or_read(name: str, folder: Path | None, data: Data, epochs: int) -> ClassConditionalFlow:
    """Read a model from a folder, or fit it and save it there; then calibrate it."""
    if folder is not None and (folder / name).is_dir():
        model = ClassConditionalFlow.from_pretrained(folder / name)
    else:
        settings = {"weight": 1e4, "epochs": epochs, "training": {"batch_size": 128}, "seed": 0}
        model = ClassConditionalFlow.fit(data.train.images, data.train.labels, name=name, **settings)
        if folder is not None:
            model.save_pretrained(folder / name)
    return model.calibrate(data.held_out.images, data.held_out.labels)


def unknown_images(test: np.ndarray, name: str, others: np.ndarray) -> dict[str, np.ndarray]:
    """Make sets of images unlike the training images of a model: other objects, noise, and altered test images."""
    generator = np.random.default_rng(0)
    blurred = [Image.fromarray(image[..., 0]).filter(ImageFilter.GaussianBlur(1)) for image in test]
    return {
        name: others,
        "noise": generator.integers(0, 256, test.shape, dtype=np.uint8),
        "inverted": 255 - test,
        "constant": np.tile(np.arange(256, dtype=np.uint8)[:, None, None, None], (1, SIDE, SIDE, 1)),
        "blurred": np.stack([np.asarray(image)[..., None] for image in blurred]),
        "half contrast": test // 2,
    }


def measure(model: ClassConditionalFlow, test: np.ndarray, sets: dict[str, np.ndarray]) -> pd.DataFrame:
    """Measure the bits/dim of each set, and the area under the ROC of three scores against the test images."""

    def scores(images: np.ndarray) -> dict[str, np.ndarray]:
        """The larger, the less the images are those of the model's classes."""
        distances = model.measure(images)[1]
        return {
            "bits_per_dim": model.bits_per_dim(images),
            "typicality": model.calibration.typicality.measure(distances),
            "probability": -model.predict_log_proba(images).max(1),
        }

    known, rows = scores(test), []
    for name, images in {"test": test, **sets}.items():
        found = scores(images)
        unknown = np.repeat([0, 1], [len(test), len(images)])
        row = {
            "model": model.data["name"],
            "images": name,
            "n": len(images),
            "bits_per_dim": found["bits_per_dim"].mean(),
            "likelier_than_median": 100 * (found["bits_per_dim"] < np.median(known["bits_per_dim"])).mean(),
        }
        for score, values in found.items():
            row[f"auroc_{score}"] = roc_auc_score(unknown, np.concatenate([known[score], values]))
        rows.append(row)
    return pd.DataFrame(rows)


def draw_curves(models: dict[str, tuple[ClassConditionalFlow, np.ndarray, dict[str, np.ndarray]]]) -> Figure:
    """Draw the ROC of the bits/dim, one panel per model."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.5 * COLUMN_WIDTH, 3.2), layout="constrained")
        for axes, (title, (model, test, sets)) in zip(figure.subplots(1, len(models)), models.items(), strict=True):
            known = model.bits_per_dim(test)
            for colour, (name, images) in zip(CLASS_COLOURS, sets.items(), strict=False):
                bits = model.bits_per_dim(images)
                scores, unknown = np.concatenate([known, bits]), np.repeat([0, 1], [len(known), len(bits)])
                false, true, _ = roc_curve(unknown, scores)
                area = roc_auc_score(unknown, scores)
                axes.plot(100 * false, 100 * true, color=colour, lw=1.2, label=f"{name} {area:.2f}", clip_on=False)
            axes.plot([0, 100], [0, 100], color="0.7", lw=0.6, ls=":")
            axes.set(title=title, xlabel="test images rejected (%)", xlim=(0, 100), ylim=(0, 100), box_aspect=1)
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "ncols": 2}
            axes.legend(title="area under the curve", frameon=False, fontsize=6, title_fontsize=6, **below)
        figure.axes[0].set_ylabel("unknown images rejected (%)")
    return figure


def walk(model: ClassConditionalFlow, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate between two images, linearly in the latents and in the pixels: (STEPS, H, W, C) each."""
    share = np.linspace(0, 1, STEPS)[:, None]
    latents = model.encode(ends)
    pixels = ends.reshape(2, -1).astype(np.float64)
    mixed = ((1 - share) * pixels[:1] + share * pixels[1:]).round().astype(np.uint8)
    return model.decode((1 - share) * latents[:1] + share * latents[1:]), mixed.reshape(-1, *ends.shape[1:])


def draw_walks(model: ClassConditionalFlow, images: np.ndarray, labels: np.ndarray, classes: list[int]) -> Figure:
    """Draw walks between the two most different images of each of some classes."""
    rows = []
    for label in classes:
        of_class = images[labels == label]
        flat = of_class.reshape(len(of_class), -1).astype(np.float64)
        distances = np.linalg.norm(flat[:, None] - flat[None], axis=2)
        rows += walk(model, of_class[list(np.unravel_index(distances.argmax(), distances.shape))])
    steps = [f"{number}/{STEPS - 1}" for number in range(STEPS)]
    names = [f"{model.classes[label]}, {line}" for label in classes for line in ("latents", "pixels")]
    return draw_image_grid(np.stack(rows), names, steps, "", "")


def describe_half_ways(model: ClassConditionalFlow, images: np.ndarray, labels: np.ndarray) -> str:
    """Describe how likely images half way between two of a class are, and how many are classified as that class."""
    walks = [
        (label, *walk(model, np.stack(ends)))
        for label in range(model.num_classes)
        for ends in zip(*(images[labels == label][place] for place in (slice(-1), slice(1, None))), strict=True)
    ]
    truth, found = np.array([label for label, *_ in walks]), []
    for place, name in ((1, "latents"), (2, "pixels")):
        half = np.stack([both[place][STEPS // 2] for both in walks])
        right = 100 * (model.predict(half) == truth).mean()
        found.append(
            f"in {name} {model.bits_per_dim(half).mean():.2f} bits/dim, {right:.1f} % classified as their class"
        )
    return f"half way between {len(walks)} pairs: " + "; ".join(found)


def describe_drawn(model: ClassConditionalFlow, real: Data, temperature: float = 0.8) -> str:
    """Compare support-vector machines trained on sampled images only and on the training images."""
    train, train_labels = real.train.images, real.train.labels
    drawn_labels = np.repeat(np.arange(model.num_classes), len(train) // model.num_classes)
    drawn = model.sample(drawn_labels, temperature, torch.Generator().manual_seed(0))

    def accuracy(images: np.ndarray, labels: np.ndarray) -> float:
        rows = [part.reshape(len(part), -1) / 255 for part in (images, real.test.images)]
        return 100 * SVC().fit(rows[0], labels).score(rows[1], real.test.labels)

    return (
        f"support-vector machine on {len(drawn)} drawn images: {accuracy(drawn, drawn_labels):.1f} %, "
        f"on the {len(train)} real ones: {accuracy(train, train_labels):.1f} %"
    )


def describe_means(model: ClassConditionalFlow, test: np.ndarray) -> str:
    """Count the class means, samples at temperature 0, that are likelier than the median test image."""
    bits = model.bits_per_dim(model.sample(np.arange(model.num_classes), 0))
    likelier = (bits < np.median(model.bits_per_dim(test))).sum()
    return f"{model.data['name']}: {likelier} of {len(bits)} class means are likelier than the median test image"


def main() -> None:
    """Fit or read the models, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the figures and the table")
    parser.add_argument(
        "--fashion", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), help="folder with the four idx files"
    )
    parser.add_argument("--models", type=Path, help="folder in which models are saved, to be read the next time")
    parser.add_argument("--epochs", type=int, default=24, help="epochs of each fit, not of models in --models")
    options = parser.parse_args()
    digits, fashion = read_digits(), read_fashion(options.fashion)
    models = {
        "model of digits": (digits, "Fashion-MNIST", fashion.test.images),
        "model of Fashion-MNIST": (fashion, "digits", digits.test.images),
    }
    fitted = {}
    for title, (real, name, others) in models.items():
        model = fit_or_read(title.removeprefix("model of "), options.models, real, options.epochs)
        fitted[title] = (model, real.test.images, unknown_images(real.test.images, name, others))
    table = pd.concat([measure(*of_model) for of_model in fitted.values()])
    options.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output / "unknown_images.csv", index=False, float_format="%.4f")
    print(table.to_string(index=False, float_format="%.3f"))
    (options.output / "unknown_images.png").write_bytes(render_figure(draw_curves(fitted), "png"))
    model = fitted["model of digits"][0]
    walks = draw_walks(model, digits.test.images, digits.test.labels, [0, 3, 4, 7])
    (options.output / "walk.png").write_bytes(render_figure(walks, "png"))
    print(describe_half_ways(model, digits.test.images, digits.test.labels))
    print(describe_drawn(model, digits))
    for model, test, _ in fitted.values():
        print(describe_means(model, test))


if __name__ == "__main__":
    main()
