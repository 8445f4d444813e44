"""Draw the picture of README.md, for light and dark pages, from the results of preset fashion_mnist."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from nfpi import ClassConditionalFlow
from nfpi.data import read_image_set
from nfpi.figures.samples_by_weight import embed_latents
from nfpi.figures.style import CLASS_COLOURS

RUNS = Path("results/fashion_mnist/fashion_mnist")
OUTPUT = Path("results/pictures")
LATENTS = {"λ = 0": "baseline/lambda=0", "λ = 3·10⁴": "fpi/lambda=30000"}
COLOURS = {"light": ("white", "black"), "dark": ("#0d1117", "#e6edf3")}  # of the page and of the text

if __name__ == "__main__":
    test = read_image_set(RUNS / "splits/test")
    models = {
        name: ClassConditionalFlow.from_pretrained(RUNS / f"mef/{run}/seed=0/model") for name, run in LATENTS.items()
    }
    labels = np.arange(test.num_classes)
    real = np.stack([test.images[test.labels == label][:2] for label in labels], 1)
    generator = torch.Generator().manual_seed(0)
    drawn = np.stack([models["λ = 3·10⁴"].sample(labels, temperature=0.8, generator=generator) for _ in range(2)])
    points = {name: embed_latents(model, test, 1000) for name, model in models.items()}

    for theme, (page, ink) in COLOURS.items():
        with mpl.rc_context({"font.size": 9, "text.color": ink}):
            figure = Figure((4.8, 4.1), facecolor=page, layout="constrained")
            top, bottom = figure.subfigures(2, 1, height_ratios=(4, 4.4), facecolor=page)
            pictures = np.concatenate([real, drawn])[..., 0]
            for axes, picture in zip(
                top.subplots(4, 10, gridspec_kw={"wspace": 0, "hspace": 0}).flat,
                pictures.reshape(-1, *pictures.shape[2:]),
                strict=True,
            ):
                axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
                axes.set_axis_off()
            for axes, (name, (places, classes)) in zip(bottom.subplots(1, 2), points.items(), strict=True):
                axes.scatter(*places.T, c=np.asarray(CLASS_COLOURS)[classes], s=3, linewidths=0)
                axes.set_title(f"latents, {name}", fontsize=9)
                axes.set_axis_off()
            top.suptitle("above: test images; below: images that the flow draws", fontsize=9)
            figure.savefig(OUTPUT / f"front_{theme}.png", dpi=200, facecolor=page)
