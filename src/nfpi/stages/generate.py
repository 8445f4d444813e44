"""The stage that draws images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nfpi.config.base import NonNegativeInt, PositiveFloat, PositiveInt
from nfpi.stages.base import HeavyStage

if TYPE_CHECKING:
    from nfpi.priors.fixed_point import FixedPointDiverged


class Generate(HeavyStage):
    """Draw labelled images from a trained flow, as many of each class, in the on-disk form of data sets.

    A run that was cut goes on by itself.
    """

    flow: Path
    """flow.safetensors"""
    prior: Path
    """prior.safetensors beside it"""
    temperature: PositiveFloat = 1.0
    """scales the deviations from the class means"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000
    seed: NonNegativeInt = 0
    output: Path
    """folder of the images"""

    def run(self) -> None:
        """Sample and write, a batch at a time."""
        import numpy as np

        from nfpi.data.writer import ImageSetWriter
        from nfpi.data.domain import domain_of_flow
        from nfpi.runtime.devices import make_fabric
        from nfpi.sampling import balanced_labels, sample_images
        from nfpi.runtime.tensors import load_flow, load_prior

        flow, header = load_flow(self.flow)
        prior, _ = load_prior(self.prior)
        device = make_fabric().device
        domain = domain_of_flow(header)
        labels = balanced_labels(prior.num_classes, self.per_class)
        channels, height, width = flow.shape
        with ImageSetWriter(
            self.output,
            len(labels),
            (height, width, channels),
            header["data"]["classes"],
            name=header["data"]["name"],
            split="generated",
            dtype=domain.dtype,
            fingerprint=self._fingerprint(),
            **{**header["data"]["extra"], "temperature": self.temperature, "seed": self.seed},
        ) as writer:
            done = writer.first_missing // self.batch_size
            places = np.arange(len(labels))[done * self.batch_size :]
            for images, classes in sample_images(
                flow.to(device),
                prior,
                labels,
                temperature=self.temperature,
                seed=self.seed,
                batch_size=self.batch_size,
                domain=domain,
                device=device,
                start_batch=done,
            ):
                here, places = places[: len(images)], places[len(images) :]
                writer.put(here, images.permute(0, 2, 3, 1).numpy(), classes.numpy())

    def _fingerprint(self) -> str:
        """Of all that the images depend on."""
        from nfpi.runtime.files import file_digest
        from nfpi.results.records import config_hash

        settings = self.model_dump(include={"temperature", "per_class", "batch_size", "seed"})
        return config_hash({**settings, "flow": file_digest(self.flow), "prior": file_digest(self.prior)})

    def mark(self, fault: FixedPointDiverged) -> None:
        """There is nothing to draw from."""
        from nfpi.runtime.divergence import mark_images

        mark_images(self.output, fault)
