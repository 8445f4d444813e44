"""Stage of latent augmentation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nfpi.config.settings import NfaConfig
from nfpi.config.base import NonNegativeInt
from nfpi.stages.base import HeavyStage, images_of_flow

if TYPE_CHECKING:
    from nfpi.data.store import ImageSet
    from nfpi.priors.fixed_point import FixedPointDiverged

logger = logging.getLogger(__name__)


class Augment(HeavyStage):
    """Make latent-augmented variants of all training images, in the on-disk form of data sets.

    A run that was cut goes on by itself.
    """

    data: Path
    """folder of the splits; the train split is augmented"""
    flow: Path
    """flow.safetensors"""
    nfa: NfaConfig = NfaConfig()
    seed: NonNegativeInt = 0
    output: Path
    """folder of the images: all variants of image 0, then all of image 1, ..."""

    def run(self) -> None:
        """Augment and write, class by class and a batch at a time."""
        import numpy as np
        from tqdm import tqdm

        from nfpi.augmentation import augment_images
        from nfpi.data.writer import ImageSetWriter
        from nfpi.data.domain import domain_of_flow
        from nfpi.runtime.devices import make_fabric
        from nfpi.runtime.tensors import load_flow

        flow, header = load_flow(self.flow)
        train = images_of_flow(self.data, self.flow, header)
        device, domain = make_fabric().device, domain_of_flow(header)
        channels, height, width = train.shape
        variants = self.nfa.variants
        settings = self.nfa.model_dump(exclude={"batch_size"}) | {"seed": self.seed, "of": train.meta["sha256"]}
        with (
            ImageSetWriter(
                self.output,
                len(train) * variants,
                (height, width, channels),
                train.classes,
                name=train.meta["name"],
                split="augmented",
                dtype=domain.dtype,
                fingerprint=self._fingerprint(train),
                **{**header["data"]["extra"], **settings},
            ) as writer,
            tqdm(total=len(train), desc="augment", unit="image", disable=None) as progress,
        ):
            missing = np.flatnonzero(~writer.written.reshape(-1, variants).all(1))
            progress.update(len(train) - len(missing))
            for indices, images in augment_images(
                flow.to(device), train, self.nfa, seed=self.seed, domain=domain, device=device, indices=missing
            ):
                places = indices[:, None] * variants + np.arange(variants)
                labels = train.labels[indices].repeat(variants)
                writer.put(places.ravel(), images.flatten(0, 1).permute(0, 2, 3, 1).numpy(), labels)
                progress.update(len(indices))
        logger.info("%d variants each of %d images", variants, len(train))

    def _fingerprint(self, train: ImageSet) -> str:
        """Of all that the images depend on."""
        from nfpi.runtime.files import file_digest
        from nfpi.results.records import config_hash

        settings = {"nfa": self.nfa.model_dump(), "seed": self.seed, "data": train.meta["sha256"]}
        return config_hash({**settings, "flow": file_digest(self.flow)})

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is no flow to augment with."""
        from nfpi.runtime.divergence import mark_images

        mark_images(self.output, fault)
