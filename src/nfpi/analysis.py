"""What figures show, computed: embeddings under fitted Gaussians, maps of convergence, grids of images. No drawing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nfpi.augmentation import augmented_variants
from nfpi.config.experiments import AugmentationFigure, ConvergenceFigure, EmbeddingFigure, SamplesFigure
from nfpi.config.settings import NfaConfig
from nfpi.data.errors import DataError
from nfpi.data.domain import Domain
from nfpi.data.store import ImageSet
from nfpi.data.autoencoder import load_decoder
from nfpi.figures.figure1 import EMBEDDING_COLUMNS
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.priors.statistics import ClassStatistics
from nfpi.priors.fixed_point import FixedPointConfig, FixedPointDiverged, fit_fixed_point
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.randomness import derive_seed, generator_for
from nfpi.sampling import balanced_labels, sample_images

OUTCOME = ("lambda", "outcome", "iterations", "quantity", "class")
"""Columns that say how a fit ended.

`outcome` is converged, not_converged (in the iterations allowed) or diverged, and then `quantity` says what was lost,
`class` whose, and `iterations` when; all three are empty where nothing was fitted.
"""

_FITTED = {"both": (True, True), "mean": (True, False), "variance": (False, True)}
"""Whether means and variances are fitted."""

_DECODED_AT_A_TIME = 8


def embed_images(images: np.ndarray, *, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of images in the plane, started at their first two principal components (scikit-learn).

    Args:
        images: (N, H, W, C).
        perplexity: effective number of neighbours, less than N.
        seed: of the randomized PCA.

    Returns:
        (N, 2), float64, without unit.

    Raises:
        ValueError: the perplexity is not less than N.
    """
    from sklearn.manifold import TSNE

    if perplexity >= len(images):
        raise ValueError(f"perplexity: expected less than the {len(images)} images, received {perplexity:g}")
    tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=derive_seed(seed, "t-SNE") % 2**32)
    embedded: np.ndarray = tsne.fit_transform(images.reshape(len(images), -1).astype(np.float32))
    return embedded.astype(np.float64)


def embedding_table(image_set: ImageSet, figure: EmbeddingFigure) -> pd.DataFrame:
    """Figure 1: images in the plane, and samples of their classes' Gaussians there before and after the fit.

    The panels are `images`, the embedding itself (variant `both`), and of each variant `data`, the Gaussians with the
    embedding's own moments, then `small` and `large`, those fitted from there on with the one λ and the other:

    - `diagonal`: variances by the released update, as the authors' notebook of this figure does it, which is without
      the pooled mean gaps of their training runs;
    - `full`: covariances by the exact update. Its loss (Eq. 4) is not bounded below for λ > K α e^{1/α} / 2, which is
      55 for ten classes and α = 10, and few such fits converge.

    All panels draw the same noise, so a sample is found again from one panel to the next.

    Args:
        image_set: training images, of which `figure.images` are taken at random, or all if there are fewer.
        figure: its settings.

    Returns:
        A frame with the columns :data:`EMBEDDING_COLUMNS`, a point a row; a panel whose fit diverged is one row
        without a point.

    Raises:
        ValueError: fewer than two images of a class were taken, or no more than the perplexity altogether.
    """
    generator = np.random.default_rng(derive_seed(figure.seed, "embedding", "images"))
    chosen = np.sort(generator.permutation(len(image_set))[: figure.images])
    labels = image_set.labels[chosen]
    points = embed_images(image_set.images[chosen], perplexity=figure.perplexity, seed=figure.seed)
    panels = [_points("both", "images", {}, points, labels, image_set.classes)]
    latents, classes = torch.from_numpy(points), torch.from_numpy(labels)
    for variant, update, weights in (
        ("diagonal", "released", figure.lambdas),
        ("full", "exact", figure.lambdas_full),
    ):
        statistics = ClassStatistics.from_latents(latents, classes, image_set.num_classes, variant == "full")
        statistics.check()
        own_variance = None if variant == "full" else statistics.variance
        fits: list[tuple[str, Mapping[str, Any], GaussianPrior | None]] = [
            ("data", {"lambda": 0.0}, GaussianPrior(statistics.mean, own_variance, statistics.covariance))
        ]
        for panel, weight in zip(("small", "large"), weights, strict=True):
            config = FixedPointConfig(weight, update=update, pooled_mean_gaps=False)  # type: ignore[arg-type]
            fits.append((panel, *_fit(statistics, config, None, image_set.classes)))
        for panel, outcome, prior in fits:
            if prior is None:
                panels.append(pd.DataFrame([{"variant": variant, "panel": panel, **outcome}]))
                continue
            drawn = balanced_labels(image_set.num_classes, figure.samples_per_class)
            samples = prior.sample(drawn, generator=generator_for("cpu", figure.seed, "embedding", "samples"))
            panels.append(_points(variant, panel, outcome, samples.numpy(), drawn.numpy(), image_set.classes))
    table = pd.concat(panels, ignore_index=True)
    table = table.assign(dataset=image_set.meta["name"]).reindex(columns=list(EMBEDDING_COLUMNS))
    return table.astype({"iterations": "Int64"})


def convergence_table(
    statistics: ClassStatistics, initial: GaussianPrior, figure: ConvergenceFigure
) -> Iterator[dict[str, Any]]:
    """How the fit ends for every λ, update, scale π, and choice of what is fitted; the rest has its defaults.

    Means alone are fitted under Σ = I, as the paper does it; the other fits start at `initial`.

    Args:
        statistics: of the latents of a start.
        initial: the Gaussians of the same start.
        figure: its settings.

    Yields:
        One row after the other, with the columns :data:`nfpi.figures.CONVERGENCE_COLUMNS`.
    """
    unit = GaussianPrior(initial.mean, torch.ones_like(initial.mean))
    updates: tuple[Literal["released", "exact"], ...] = ("released", "exact")
    scales: tuple[Literal["pairwise", "average"], ...] = ("pairwise", "average")
    for fitted, update, scale, weight in product(_FITTED, updates, scales, sorted(set(figure.lambdas))):
        fit_mean, fit_variance = _FITTED[fitted]
        config = FixedPointConfig(
            weight,
            alpha=figure.alpha,
            scale=scale,
            update=update,
            fit_mean=fit_mean,
            fit_variance=fit_variance,
        )
        outcome, _ = _fit(statistics, config, initial if fit_variance else unit)
        yield {
            "dataset": figure.dataset,
            "alpha": figure.alpha,
            "fitted": fitted,
            "update": update,
            "scale": scale,
            **outcome,
        }


def sample_grid(
    flow: MatrixExponentialFlow,
    prior: GaussianPrior,
    figure: SamplesFigure,
    *,
    seed: int,
    data: Mapping[str, Any],
    domain: Domain,
    device: torch.device,
) -> np.ndarray:
    """An image of each class at each temperature, from the same noise at all of them.

    Args:
        figure: its settings; of the classes, the first so many.
        seed: of the noise.
        data: `header["data"]` of the flow.
        domain: what the flow was trained on.

    Returns:
        (temperatures, classes, H, W, C), uint8.
    """
    labels = torch.arange(min(figure.classes, prior.num_classes))
    rows = []
    for temperature in figure.temperatures:
        options = {"temperature": temperature, "seed": seed, "batch_size": len(labels)}
        ((images, _),) = sample_images(flow, prior, labels, domain=domain, device=device, **options)  # type: ignore[arg-type]
        rows.append(images)
    return _as_pixels(torch.stack(rows), data, device)


def augmentation_grid(
    flow: MatrixExponentialFlow,
    image_set: ImageSet,
    figure: AugmentationFigure,
    nfa: NfaConfig,
    *,
    seed: int,
    data: Mapping[str, Any],
    domain: Domain,
    device: torch.device,
) -> tuple[np.ndarray, list[str]]:
    """Figure 2: images, and beside each its latent-augmented variants.

    Args:
        image_set: the training images.
        figure: its settings; which images of the classes are shown is drawn from the seed.
        nfa: how variants are made; how many is the figure's to say.
        seed: of choice and augmentation.
        data: `header["data"]` of the flow.
        domain: what the flow was trained on.

    Returns:
        (images, 1 + variants, H, W, C), uint8, the original first; and the class of each image.

    Raises:
        DataError: a class is not among those of the data set, or has too few images.
    """
    indices, names = [], []
    for name in figure.classes:
        label = _class_index(image_set, name)
        members = np.flatnonzero(image_set.labels == label)
        if len(members) < figure.images_per_class:
            raise DataError(f"class '{name}': expected {figure.images_per_class} images, received {len(members)}")
        generator = np.random.default_rng(derive_seed(seed, "figure", label))
        indices += generator.choice(members, figure.images_per_class, replace=False).tolist()
        names += [image_set.classes[label]] * figure.images_per_class
    config = nfa.model_copy(update={"variants": figure.variants})
    variants = augmented_variants(flow, image_set, np.array(indices), config, seed=seed, domain=domain, device=device)
    originals = torch.from_numpy(image_set.images[indices]).permute(0, 3, 1, 2)
    return _as_pixels(torch.cat([originals.unsqueeze(1), variants], 1), data, device), names


def _fit(
    statistics: ClassStatistics,
    config: FixedPointConfig,
    initial: GaussianPrior | None,
    classes: list[str] | None = None,
) -> tuple[dict[str, Any], GaussianPrior | None]:
    """How a fit ended, with the columns :data:`OUTCOME`, and its Gaussians unless it diverged."""
    ended: dict[str, Any] = {"lambda": config.weight}
    try:
        result = fit_fixed_point(statistics, config, initial)
    except FixedPointDiverged as fault:
        name = classes[fault.class_index] if classes else str(fault.class_index)
        ended |= {"outcome": "diverged", "iterations": fault.iteration, "quantity": fault.quantity, "class": name}
        return ended, None
    outcome = "converged" if result.converged else "not_converged"
    return {**ended, "outcome": outcome, "iterations": result.iterations}, result.prior


def _points(
    variant: str,
    panel: str,
    outcome: Mapping[str, Any],
    points: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
) -> pd.DataFrame:
    """A panel's points, class by class in the order of the classes."""
    order = np.argsort(labels, kind="stable")
    return pd.DataFrame(
        {
            "variant": variant,
            "panel": panel,
            **outcome,
            "class": [classes[label] for label in labels[order]],
            "x": points[order, 0],
            "y": points[order, 1],
        }
    )


def _class_index(image_set: ImageSet, name: str) -> int:
    """The class of this name, or else of this index."""
    if name in image_set.classes:
        return image_set.classes.index(name)
    if name.isdecimal() and int(name) < image_set.num_classes:
        return int(name)
    raise DataError(
        f"classes: expected a name or an index of the {image_set.num_classes} classes of "
        f"{image_set.meta['name']}, received '{name}'"
    )


def _as_pixels(images: Tensor, data: Mapping[str, Any], device: torch.device) -> np.ndarray:
    """Stored images (R, C, ·, ·, ·) as pixels (R, C, H, W, channels), uint8; latents are decoded."""
    rows, columns = images.shape[:2]
    images = images.flatten(0, 1)
    if images.dtype != torch.uint8:
        decoder = load_decoder(data, device)
        images = torch.cat([decoder(part.to(device)).cpu() for part in images.split(_DECODED_AT_A_TIME)])
    return images.unflatten(0, (rows, columns)).permute(0, 1, 3, 4, 2).numpy()
