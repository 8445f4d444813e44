"""Distances of generated from real images by their features in a network.

The distances are torch-fidelity's: FID (Heusel et al., 2017), KID (Bińkowski et al., 2018), and precision and recall
(Kynkäänniemi et al., 2019).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from nfpi.classifiers.registry import read_weights
from nfpi.config.flows import QualityConfig
from nfpi.data.batches import load_batches
from nfpi.data.store import ImageSet
from nfpi.runtime.faults import format_error
from nfpi.runtime.formats import FormatError
from nfpi.runtime.randomness import make_generator

_INCEPTION_BATCH = 50
_ROWS_AT_ONCE = 1000
"""Images whose distances to all others are in memory at a time."""


def require_torch_fidelity() -> None:
    """Raise ValueError unless torch-fidelity is installed."""
    try:
        import torch_fidelity  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"metrics: expected torch-fidelity (pip install 'nfpi[quality]'), received none ({error})"
        ) from None


def draw_images(image_set: ImageSet, count: int, seed: int) -> ImageSet:
    """Return `count` random images, in their order; all if there are as many."""
    generator = make_generator("cpu", seed, "quality")
    chosen = torch.randperm(len(image_set), generator=generator)[:count].sort().values.numpy()
    return ImageSet(image_set.images[chosen], image_set.labels[chosen], image_set.meta)


def compare_features(generated: Tensor, real: Tensor, settings: QualityConfig) -> dict[str, float]:
    """Compute `fid`, `kid`, `precision` and `recall` of generated images, in float64.

    Args:
        generated, real: features of the images of each set, (N, F).
        settings: neighbours of precision and recall, and subsets of KID.

    With N < 2F, the covariances of FID are dominated by their errors.

    Raises:
        ImportError: torch-fidelity is not installed.
    """
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    pair = generated.double(), real.double()
    images = min(map(len, pair))
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, pair), verbose=False)
    size = min(settings.kid_subset_size, images)
    kid = kid_features_to_metric(*pair, kid_subsets=settings.kid_subsets, kid_subset_size=size, verbose=False)
    neighbors = {"prc_neighborhood": settings.neighbors, "prc_batch_size": _ROWS_AT_ONCE, "save_cpu_ram": True}
    shares = prc_features_to_metric(*pair, **neighbors, verbose=False)
    return {
        "fid": fid[KEY_METRIC_FID],
        "kid": kid[KEY_METRIC_KID_MEAN],
        "precision": shares[KEY_METRIC_PRECISION],
        "recall": shares[KEY_METRIC_RECALL],
    }


@dataclass(frozen=True)
class Inception:
    """The Inception network of FID.

    Attributes:
        network: torch-fidelity's network, on `device`; it resizes images itself.
        device: device of the network.
        num_features: number of features.
    """

    network: nn.Module
    device: torch.device
    num_features: ClassVar[int] = 2048

    @classmethod
    def read(cls, path: Path, device: torch.device) -> Inception:
        """Load the network with the weights that torch-fidelity publishes, from a local file.

        Raises:
            FormatError: the file is missing, damaged, or has other weights.
            ImportError: torch-fidelity is not installed.
        """
        from torch_fidelity import FeatureExtractorInceptionV3

        weights = io.BytesIO()
        torch.save(read_weights(path), weights)  # the network itself would execute code in the file
        weights.seek(0)
        try:
            network = FeatureExtractorInceptionV3("inception-v3-compat", [str(cls.num_features)], weights)
        except RuntimeError as error:
            reason = format_error(error, 300)
            raise FormatError(
                f"{path}: expected torch-fidelity's weights of Inception, received others ({reason})"
            ) from None
        return cls(network.to(device), device)

    @torch.no_grad()
    def extract_features(self, image_set: ImageSet) -> Tensor:
        """Return the features of 8-bit images of any size, grey or RGB, (N, 2048), float32, on the CPU."""
        batches = load_batches(image_set, _INCEPTION_BATCH, seed=0)
        colored = (images.expand(-1, 3, -1, -1).to(self.device) for images, _ in batches)
        return torch.cat([self.network(images)[0].cpu() for images in colored])
