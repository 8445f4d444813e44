"""`nfpi.ClassConditionalFlow`: a flow that classifies, scores, samples and augments images."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from nfpi.augmentation import augment_images
from nfpi.config.flows import NfaConfig
from nfpi.data.store import ImageSet, digest_images
from nfpi.linalg import precise_dtype
from nfpi.model.calibration import Calibration
from nfpi.model.fitting import FittedFlow
from nfpi.model.hub import SharedFlow
from nfpi.model.inference import (
    choose_batch_size,
    decode_batches,
    device_of,
    encode_batches,
    strict_inference,
)
from nfpi.model.inputs import Images, Labels, check_images, check_labels, check_latents, draw_seed
from nfpi.model.settings import parse_settings
from nfpi.release import load_release_checkpoint, make_release_config
from nfpi.sampling import sample_images

logger = logging.getLogger(__name__)


class ClassConditionalFlow(FittedFlow, SharedFlow):
    """A normalizing flow f with a Gaussian for each class: log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|.

    x is a dequantised image in [−1, 1]. Densities are deterministic: all images get the same draw of the
    dequantisation noise, see :mod:`nfpi.model.inference`. Everything is computed in batches of bounded memory on the
    device of the model (:meth:`to`), and returned as NumPy arrays.

    Attributes:
        flow: f, an :class:`nfpi.flows.ImageFlow`.
        prior: the K Gaussians in D = C·H·W dimensions, a :class:`nfpi.priors.GaussianPrior`, float64 (float32
            on MPS).
        config: description of data, training and prior, as JSON values.

    Examples:
        >>> import numpy as np
        >>> from nfpi import ClassConditionalFlow
        >>> images = np.random.default_rng(0).integers(0, 128, (40, 4, 4, 1), dtype=np.uint8)
        >>> images[20:] += 127
        >>> labels = ["dark"] * 20 + ["light"] * 20
        >>> model = ClassConditionalFlow.fit(images, labels, epochs=10, progress=False)
        >>> model.classes
        ['dark', 'light']
        >>> model.predict(images[[0, -1]])
        array([0, 1])
        >>> model.sample([0, 1, 1]).shape
        (3, 4, 4, 1)
        >>> bool((model.decode(model.encode(images)) == images).all())
        True
    """

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device, and return it."""
        device = torch.device(device)
        self.flow.to(device)
        prior, dtype = self.prior, precise_dtype(device)
        if prior.mean.device.type != "mps":  # which has no float64: cast before a move to it, after a move from it
            prior = prior.to(dtype=dtype)
        self.prior = prior.to(device).to(dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        return device_of(self.flow)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of an image."""
        channels, height, width = self.flow.shape
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.prior.num_classes

    @classmethod
    def from_release(cls, checkpoint: Path | str, classes: Sequence[str] | None = None, averaged: bool = True) -> Self:
        """Read a checkpoint of the paper's released code.

        Args:
            checkpoint: path of the file.
            classes: names of the K classes; None: "0", "1", …
            averaged: whether to take the averaged (EMA) weights.

        Raises:
            FormatError: the file is missing or damaged, or holds something else.
            ValueError: `classes` does not have K distinct names.
        """
        flow, prior = load_release_checkpoint(checkpoint, averaged)
        names = [str(name) for name in (range(prior.num_classes) if classes is None else classes)]
        data: dict[str, Any] = {"name": None, "classes": names, "dtype": "uint8", "extra": {}}
        return cls(flow, prior, make_release_config(checkpoint, averaged, data))

    # ---- classification and densities -----------------------------------------------------------------------

    def log_prob(self, images: Images, labels: Labels | None = None) -> np.ndarray:
        """Return log p(x | y) of each image under its class, or under every class.

        Args:
            images: (N, H, W, C).
            labels: (N,); None: all classes.

        Returns:
            (N,), or (N, K) without labels; float64, nats. The density is that of x in [−1, 1]^D.

        Raises:
            ValueError: images or labels are not those of this model, see :mod:`nfpi.model.inputs`.
            FloatingPointError: a density is not finite.
        """
        array = self._check_images(images)
        chosen = None if labels is None else check_labels(labels, self.classes, len(array))
        found, _ = self.measure(array)
        return found if chosen is None else found[np.arange(len(array)), chosen]

    def measure(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Return log p(x | y) of each image under every class, and its distance to the nearest class Gaussian.

        Args:
            images: (N, H, W, C).

        Returns:
            (N, K), in nats; and min_y (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D, (N,), about 1 for images of the classes; float64.

        Raises:
            FloatingPointError: a density is not finite.
        """
        array = self._check_images(images)
        found, distance = np.empty((len(array), self.num_classes)), np.empty(len(array))
        self._place_prior()
        with strict_inference(self.flow):
            for rows, z, log_abs_det in encode_batches(self.flow, self.domain, array):
                log_prob = self.prior.log_prob(z)
                found[rows] = (log_prob + log_abs_det[:, None]).cpu().numpy()
                distance[rows] = self.prior.compute_distances(log_prob).amin(1).cpu().numpy()
        if not np.isfinite(found).all():
            index = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
            raise FloatingPointError(f"images: expected finite densities, received NaN or infinity for image {index}")
        return found, distance

    def calibrate(self, images: Images, labels: Labels) -> Self:
        """Learn from validation images how sure the model may be, and return the model.

        Fits the temperature of :meth:`predict_proba` by the likelihood of the labels, the thresholds of :meth:`predict`
        and the quantiles of :meth:`decide`; they are `calibration` of the config, and saved with the model. Neither the
        flow nor its Gaussians change.

        Args:
            images: (N, H, W, C), not those of a later test; training images are left out
                (:meth:`leave_out_training_images`).
            labels: (N,).

        Raises:
            ValueError: images or labels are not those of this model, or all are training images.
        """
        array, indices = self.leave_out_training_images(images, labels)
        log_prob, distance = self.measure(array)
        found = Calibration.fit(log_prob, indices, distance)
        self.config["calibration"] = found.model_dump()
        return self

    @property
    def calibration(self) -> Calibration:
        """Result of :meth:`calibrate`.

        Raises:
            ValueError: the model is not calibrated.
        """
        if self.config.get("calibration") is None:
            raise ValueError("calibration: expected a calibrated model: calibrate(images, labels), or nfpi calibrate")
        return Calibration.model_validate(self.config["calibration"])

    def predict_log_proba(self, images: Images) -> np.ndarray:
        """Return log p(y | x) = log p(x | y) / τ − log Σ_k p(x | k)^(1/τ) under equal class frequencies.

        τ is the temperature of :meth:`calibrate`; 1 for a model that is not calibrated.

        Args:
            images: (N, H, W, C).

        Returns:
            (N, K), float64, nats.
        """
        return self.normalize(self.log_prob(images))

    def normalize(self, log_prob: np.ndarray) -> np.ndarray:
        """Return log p(y | x) of :meth:`predict_log_proba` from log p(x | y), (N, K)."""
        divided = log_prob / (self._temperature or 1.0)
        return divided - np.logaddexp.reduce(divided, 1, keepdims=True)

    def predict_proba(self, images: Images) -> np.ndarray:
        """Return p(y | x), the exponential of :meth:`predict_log_proba`, (N, K)."""
        probabilities: np.ndarray = np.exp(self.predict_log_proba(images))
        return probabilities

    def predict(
        self,
        images: Images,
        *,
        coverage: float | None = None,
        max_risk: float | None = None,
        delta: float = 0.05,
    ) -> np.ndarray:
        """Return argmax_y log p(x | y), the predicted class of each image, or −1 where the model is not sure enough.

        It is sure if the margin between the two likeliest classes exceeds a threshold, chosen on the images of
        :meth:`calibrate`: see :mod:`nfpi.results.statistics.abstention`.

        Args:
            images: (N, H, W, C).
            coverage: share of such images for which a class is returned; None: all.
            max_risk: largest share of errors among the returned classes, in place of the coverage. If new images come
                from the same distribution as those of :meth:`calibrate`, and these are independent of each other and of
                the model, it is kept with probability 1 − δ. No class is returned if it cannot be guaranteed.
            delta: δ.

        Returns:
            (N,), indices of classes, int64; their names are `model.classes`.

        Raises:
            ValueError: a share is out of range, or coverage or risk is given and the model is not calibrated.
        """
        log_prob = self.log_prob(images)
        if coverage is None and max_risk is None:
            predicted: np.ndarray = log_prob.argmax(1)
            return predicted
        return self.calibration.predict(log_prob, coverage, max_risk, delta)

    def decide(self, images: Images, coverage: float) -> np.ndarray:
        """Return whether the model is sure of each image's class: `sure`, `not sure` or `unknown`.

        It is `unknown`, perhaps of none of the classes, if it is farther from the nearest class Gaussian, or closer to
        it, than 99 % of the images of :meth:`calibrate`: :class:`nfpi.results.statistics.detection.Typicality`.

        Args:
            images: (N, H, W, C).
            coverage: as in :meth:`predict`.

        Returns:
            (N,), text.

        Raises:
            ValueError: the coverage is out of range, or the model is not calibrated.
        """
        return self.calibration.decide(*self.measure(images), coverage)

    @property
    def _temperature(self) -> float | None:
        return self.calibration.temperature if self.config.get("calibration") is not None else None

    def bits_per_dim(self, images: Images, labels: Labels | None = None) -> np.ndarray:
        """Return −log₂ p(x | y) / D of each image, on the scale of 256 grey levels.

        Args:
            images: (N, H, W, C).
            labels: (N,); None: the mixture of all classes, p(x) = Σ_y p(x | y) / K.

        Returns:
            (N,), float64; for a flow on latents of an autoencoder, bits per dimension of the latents.
        """
        log_prob = self.log_prob(images, labels)
        if labels is None:
            log_prob = np.logaddexp.reduce(log_prob, 1) - math.log(self.num_classes)
        return self._compute_bits(log_prob)

    def leave_out_training_images(self, images: Images, labels: Labels) -> tuple[np.ndarray, np.ndarray]:
        """Return images without those that the model was trained on, on which it does better than on others.

        How many are left out is logged. An image is known by its pixels; a mirrored or otherwise changed one is not.

        Args:
            images: (N, H, W, C).
            labels: (N,).

        Returns:
            the other M images, (M, H, W, C), and the indices of their classes, (M,). All, if the training images are
            not known (`digests`).

        Raises:
            ValueError: images or labels are not those of this model, or none is left.
        """
        array = self._check_images(images)
        indices = check_labels(labels, self.classes, len(array))
        if self.digests is None:
            logger.warning("the training images of this model are not known: none is left out")
            return array, indices
        seen = np.isin(digest_images(array), self.digests)
        if seen.all():
            raise ValueError(
                f"images: expected some that the model was not trained on, received {len(array)} of its training images"
            )
        if seen.any():
            logger.warning("left out %d of %d images, on which the model was trained", seen.sum(), len(array))
        return array[~seen], indices[~seen]

    def evaluate(self, images: Images, labels: Labels) -> dict[str, Any]:
        """Measure the model on labelled images.

        Args:
            images: (N, H, W, C); training images are left out (:meth:`leave_out_training_images`).
            labels: (N,).

        Returns:
            `n`, the number of images measured; `nf_acc` and `nf_top5`, percentages of those whose class is the
            likeliest, or among the five likeliest; `nf_acc_interval`, Wilson's 95 % interval; `bits_per_dim`, the mean
            under the images' own classes; `ece`, the expected calibration error in percent, without temperature, and
            after :meth:`calibrate` `ece_calibrated`, with it; `worst_class_acc`, the lowest accuracy of a class, and
            `worst_class`, the name of this class.

        Raises:
            ValueError: images or labels are not those of this model, or all are training images.
        """
        from nfpi.results.metrics import compute_metrics, per_class_accuracy
        from nfpi.results.statistics.intervals import wilson_interval

        array, indices = self.leave_out_training_images(images, labels)
        log_prob, truth = torch.from_numpy(self.log_prob(array)), torch.from_numpy(indices)
        ranked = log_prob.topk(min(5, self.num_classes), 1).indices == truth[:, None]
        accuracy = 100 * float(ranked[:, 0].double().mean())
        per_class = per_class_accuracy(log_prob, truth).nan_to_num(math.inf)  # NaN: a class without images
        return {
            "n": len(array),
            "nf_acc": accuracy,
            "nf_acc_interval": wilson_interval(accuracy, len(array)),
            "nf_top5": 100 * float(ranked.any(1).double().mean()),
            "bits_per_dim": float(self._compute_bits(log_prob.gather(1, truth[:, None]).squeeze(1).numpy()).mean()),
            **compute_metrics(["ece", "ece_calibrated", "worst_class_acc"], log_prob, truth, self._temperature),
            "worst_class": self.classes[int(per_class.argmin())],
        }

    # ---- latents, samples, variants -------------------------------------------------------------------------

    def encode(self, images: Images) -> np.ndarray:
        """Return the latents z = f(x).

        Args:
            images: (N, H, W, C).

        Returns:
            (N, D), float32; flattened in the order (C, H, W), like the means (K, D) of the prior.
        """
        array = self._check_images(images)
        found = np.empty((len(array), math.prod(self.flow.shape)), np.float32)
        with strict_inference(self.flow):
            for rows, z, _ in encode_batches(self.flow, self.domain, array):
                found[rows] = z.flatten(1).cpu().numpy()
        return found

    def decode(self, latents: Any) -> np.ndarray:
        """Return the images of latents: f⁻¹(z) minus the dequantisation noise, rounded to grey levels.

        `decode(encode(images))` equals `images`, unless these are latents of an autoencoder.

        Args:
            latents: (N, D) or (N, C, H, W), real.

        Returns:
            (N, H, W, C), uint8; float16 and not rounded to grey levels if the images are latents of an autoencoder.

        Raises:
            ValueError: the latents have another size.
            FloatingPointError: an inverse is not finite.
        """
        checked = check_latents(latents, self.flow.shape)
        with strict_inference(self.flow):
            return np.concatenate(list(decode_batches(self.flow, self.domain, checked)))

    def sample(self, labels: Labels, temperature: float = 1.0, generator: torch.Generator | None = None) -> np.ndarray:
        """Draw images f⁻¹(z), z ~ N(μ_y, T² Σ_y).

        Args:
            labels: (N,), the class of each image.
            temperature: T ≥ 0; below 1, images are more typical and less varied.
            generator: random number generator; None: torch's default one.

        Returns:
            (N, H, W, C), uint8, or float16 for latents of an autoencoder. A flow that was trained with `grey_noise`
            learns images with this noise, so its samples are brighter by the mean of the noise, `grey_noise` / 2 of the
            value range.

        Raises:
            ValueError: a label is not a class, or the temperature is not a number of at least 0.
            FloatingPointError: images are still infinite or NaN after several draws of their latents.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature: expected a number of at least 0, received {temperature!r}")
        indices = torch.from_numpy(check_labels(labels, self.classes))
        with strict_inference(self.flow):
            drawn = sample_images(
                self.flow,
                self.prior,
                indices,
                temperature=float(temperature),
                seed=draw_seed(generator),
                batch_size=choose_batch_size(self.flow),
                domain=self.domain,
                device=self.device,
            )
            return np.concatenate([images.permute(0, 2, 3, 1).numpy() for images, _ in drawn])

    def augment(
        self, images: Images, labels: Labels, *, generator: torch.Generator | None = None, **settings: Any
    ) -> np.ndarray:
        """Make variants of images by mixing latents of a class (NFA, §5.3), see :mod:`nfpi.augmentation`.

        The principal axes of a class are computed from its images in `images`, and each image is mixed only with
        others of its class in `images`: pass all images of a class in one call.

        Args:
            images: (N, H, W, C), at least two of each class.
            labels: (N,).
            generator: random number generator; None: torch's default one.
            settings: those of :class:`nfpi.config.flows.NfaConfig`: `variants` of each image (3), `strength` in
                [0, 1] (0.5), `axes` (64), `law`, `concentration`.

        Returns:
            (N, variants, H, W, C), an array of the dtype of `images`.

        Raises:
            ValueError: a setting is unknown or out of range, or a class has only one image.
            FloatingPointError: variants are still infinite or NaN after several draws.
        """
        config = parse_settings(NfaConfig, {"batch_size": choose_batch_size(self.flow), **settings})
        array = self._check_images(images)
        indices = check_labels(labels, self.classes, len(array))
        image_set = ImageSet(array, indices, {"name": self.data["name"], "classes": self.classes, "extra": {}})
        found = np.empty((len(array), config.variants, *self.shape), array.dtype)
        with strict_inference(self.flow):
            for places, variants in augment_images(
                self.flow,
                image_set,
                config,
                seed=draw_seed(generator),
                domain=self.domain,
                device=self.device,
            ):
                found[places] = variants.permute(0, 1, 3, 4, 2).numpy()
        return found

    def _check_images(self, images: Images) -> np.ndarray:
        return check_images(images, self.flow.shape, self.domain.dtype)

    def _place_prior(self) -> None:
        if self.prior.mean.device != self.device:  # only the flow was moved
            self.to(self.device)

    def _compute_bits(self, log_prob: np.ndarray) -> np.ndarray:
        dimensions = math.prod(self.flow.shape)
        return self.domain.bits_per_dim(torch.from_numpy(-log_prob), dimensions).numpy()
