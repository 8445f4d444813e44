"""How latents of images lie in the Gaussians of a trained flow, and Gaussians estimated again from these latents."""

from __future__ import annotations

from typing import Self

import numpy as np

from nfpi.config.experiments import Refit
from nfpi.data.store import ImageSet, digest_images
from nfpi.evaluation import collect_statistics
from nfpi.model.inference import choose_batch_size, device_of, strict_inference
from nfpi.model.inputs import Images, Labels, check_images, check_labels
from nfpi.model.trained import TrainedFlow
from nfpi.priors.following import Following, measure_following
from nfpi.priors.statistics import ClassStatistics


class RefittableFlow(TrainedFlow):
    """A trained flow whose Gaussians can be estimated again; base class of :class:`nfpi.ClassConditionalFlow`.

    Unlike densities, latents get new dequantisation noise for each image here, from the model's seed: under a shared
    noise, the variance of a constant pixel would be 0.
    """

    def measure_following(self, images: Images, labels: Labels) -> Following:
        """Measure how the latents of images lie in the Gaussians of their classes.

        If the mismatch of training images exceeds 0.1 bits/dim (`nfpi.config.metrics.MISMATCH_LIMIT`), the flow
        does not follow its Gaussians: their samples lie where there are few images.

        Args:
            images: (N, H, W, C), at least two of each class; of the training images, without augmentation.
            labels: (N,).

        Raises:
            ValueError: images or labels are not those of this model, or a class has too few images.
        """
        return measure_following(self.prior, self._collect_statistics(images, labels))

    def refit(self, images: Images, labels: Labels, how: Refit = "moments") -> Self:
        """Return a model with the same flow, and with Gaussians estimated again from the latents of images.

        The two models share the flow; this one keeps its Gaussians.

        Args:
            images: (N, H, W, C), at least two of each class: the training images, without augmentation.
            labels: (N,).
            how: `moments`: means and variances of each class; `prior`: by the method of the prior with its λ.

        Raises:
            ValueError: images or labels are not those of this model; a class has too few images; or the method of the
                prior is not known, or learns the Gaussians along with the flow.
            Diverged: the fit diverged.
        """
        array = check_images(images, self.flow.shape, self.domain.dtype)
        statistics = self._collect_statistics(array, labels)
        model = self.refit_to(statistics, how)
        if self.digests is not None:
            model.digests = np.union1d(self.digests, digest_images(array))
        model._record_following(measure_following(model.prior, statistics))
        return model

    def _record_following(self, found: Following) -> None:
        """Record β and mismatch of the training images in the config."""
        self.config["following"] = {"beta": found.beta, "mismatch": found.mismatch}

    def _collect_statistics(self, images: Images, labels: Labels) -> ClassStatistics:
        array = check_images(images, self.flow.shape, self.domain.dtype)
        indices = check_labels(labels, self.classes, len(array))
        with strict_inference(self.flow):
            statistics = collect_statistics(
                self.flow,
                ImageSet(array, indices, self.data),
                batch_size=choose_batch_size(self.flow),
                seed=self.seed,
                domain=self.domain,
                device=device_of(self.flow),
                covariance=self.prior.is_full,
            )
        statistics.check_counts()
        return statistics
