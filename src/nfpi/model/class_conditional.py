"""`nfpi.ClassConditionalFlow`: a trained flow with its class Gaussians, to fit, use, save and share."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch

from nfpi.augmentation import augment_images
from nfpi.config.experiments import Refit
from nfpi.config.flows import NfaConfig, TrainingConfig
from nfpi.data.domain import Domain, VectorDomain
from nfpi.data.store import ImageSet, digest_images
from nfpi.evaluation import collect_statistics
from nfpi.flows.bijection import ImageFlow, device_of
from nfpi.linalg import precise_dtype
from nfpi.model import inference, inputs
from nfpi.model.files import PRETRAINED, Calibration, check_classes, find_domain, read_model, write_model
from nfpi.model.fitting import FitSettings, estimate_again, parse_settings, train_model, warn_unless_followed
from nfpi.model.inputs import Images, Labels
from nfpi.priors.following import Following, measure_following
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.release import load_release_checkpoint
from nfpi.runtime.allocation import require_allocated_gpu
from nfpi.sampling import sample_images

logger = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class ClassConditionalFlow:
    """A normalizing flow f with a Gaussian for each class: log p(x | y) = log N(f(x); μ_y, Σ_y) + log |det ∂f/∂x|.

    x is a dequantised image in [−1, 1]. Densities are deterministic: all images get the same draw of the
    dequantisation noise, see :mod:`nfpi.model.inference`. Everything is computed in batches of bounded memory on the
    device of the model (:meth:`to`), and returned as NumPy arrays.

    Images are given in any of these forms:

    - arrays or tensors (N, H, W, C), uint8; grey images may also be (N, H, W). Flows on latents of an autoencoder take
      these latents, float16
    - the path of an image file, or of a folder of them at any depth, in sorted order; or a list of paths
    - vectors instead of images: (N, D) real numbers, an array, a tensor or a data frame. The model standardises them by
      its training data, and its densities are those of the standardised vectors, see
      :class:`nfpi.data.domain.VectorDomain`
    - a `Dataset` of torch or torchvision: of images (PIL, or tensors (C, H, W), uint8 or in [0, 1]), or of pairs of
      image and label. It is read once; PIL images are converted as files are

    Labels (N,) are indices of classes in [0, K) or their names. Where labels are needed, they may be left out for a
    `Dataset` that has them, and for a folder with one folder per class. Methods raise ValueError for images and labels
    that are not those of the model, and DataError, a ValueError, for files that cannot be read.

    Attributes:
        flow: f, an :class:`nfpi.flows.ImageFlow`, with the averaged weights of its training.
        prior: the K Gaussians in D = C·H·W dimensions, a :class:`nfpi.priors.GaussianPrior`, float64 (float32
            on MPS).
        config: description of the model as JSON values: `data` (name, classes, dtype, extra), `training`, `seed`,
            `start` (initial Gaussians), `step` (number of training steps), `prior` (method, λ and settings), after
            `fit` or `refit` `following` (β and mismatch of the training images, see
            :class:`nfpi.priors.following.Following`), after `fit` with held-out images `validation` (their metrics),
            and after `calibrate` `calibration` (:class:`nfpi.model.files.Calibration`).
        digests: digests of its training images (:func:`nfpi.data.store.digest_images`), each once, sorted; None: not
            known, as for models of earlier versions and released checkpoints.
        resize: whether image files of another size are resized and centre-cropped, and those in colour turned to grey
            for a model of grey images, as by `nfpi classify --resize`. If not, they are refused.

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

    flow: ImageFlow
    prior: GaussianPrior
    config: dict[str, Any]
    digests: np.ndarray | None = None
    resize: bool = False

    def __post_init__(self) -> None:
        check_classes(self.classes, self.flow, self.prior)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(flow={self.flow.kind!r}, image={self.shape}, num_classes={self.num_classes})"

    # ---- fitting, reading and writing -----------------------------------------------------------------------

    @classmethod
    def fit(
        cls,
        images: Images,
        labels: Labels = None,
        *,
        weight: float | None = None,
        relative_weight: float | None = None,
        validation: float | Images | tuple[Images, Labels] | None = None,
        epochs: int | None = None,
        size: int | None = None,
        classes: Sequence[str] | None = None,
        flow: str | Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        prior: str | Mapping[str, Any] | None = None,
        flip: bool = False,
        name: str | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        progress: bool = True,
    ) -> Self:
        """Initialise a flow on images, fit the class Gaussians to its latents, and train it under them.

        Calls the same functions as the stages of the workflow, without writing files. Called on a model, it returns a
        new one, and leaves that model as it is.

        A fit uses torch's global random generator and restores it at the end, so other threads must not use it
        meanwhile.

        One more pass over the training images measures whether the flow follows its Gaussians
        (:meth:`measure_following`): `following` of the model's config, with a warning if it does not.

        Args:
            images: N images in any form. Grey arrays may be (N, H, W), unless W is 1 to 4.
            labels: (N,), indices of classes or their names; None: those of the folder or data set.
            weight: λ of Eq. 4, how strongly the Gaussians repel each other; at 0, the fixed point keeps the initial
                Gaussians, as in the workflow. None: that of the relative weight.
            relative_weight: s₀ in place of λ, which has the same effect for every number of classes and pixels, see
                :func:`nfpi.config.priors.compute_weight`; None: 1, unless `weight` is given.
            validation: share of the images to hold out; or a folder, a data set or (images, labels). The model's card
                has the scores on them.
            epochs: passes over the training images; None: those of `training`, by default as many as
                take 800 steps, but at least 20.
            size: size that image files are resized and centre-cropped to; None: all must have the same size.
            classes: names of the K classes, in the order of the model. Labels that are names, such as those of a
                folder, are matched by name; others index `classes`. None: those of the folder or data set that have
                images, the names in `labels`, sorted, or "0" … "K − 1".
            flow: kind of flow ("matrix_exponential", "glow", "transformer") or its settings, as under `flows:` in
                config.yaml; None: "matrix_exponential". The settings of a kind given by its name depend on the size of
                the images, see :func:`nfpi.model.fitting.choose_default_settings`.
            training: settings that differ from those of :func:`nfpi.model.fitting.choose_training`. As no files are
                written, `checkpoint_minutes`, `tracking` and `sample_every_epochs` have no effect.
            prior: method of the Gaussians or its settings, as under `priors:` in config.yaml; None: the fixed point.
            flip: whether mirrored images still belong to their class, for augmentations that mirror; the
                augmentation "flip" requires True.
            name: name of the data set, for the model's card.
            seed: seed of all random numbers.
            device: device to train on; None: a GPU if available.
            progress: whether to show a progress bar; if the output is no terminal, it is renewed every ten seconds.

        Raises:
            ValueError: images, labels or a setting are invalid.
            DeviceError: torch finds no GPU, or cannot use it.
            Diverged: the fit of the Gaussians or the training diverged; the message says what to change.
        """
        given: dict[str, Any] = {"epochs": epochs, "flow": flow, "training": training, "prior": prior}
        given |= {"weight": weight, "relative_weight": relative_weight, "flip": flip, "name": name, "seed": seed}
        settings = parse_settings(FitSettings, given)
        images, labels, names = inputs.load_training_images(images, labels, size, progress)
        about: dict[str, Any] = {"flip": settings.flip, "name": settings.name, "seed": settings.seed}
        about["resize"] = size is not None
        train, held_out = inputs.make_sets(images, labels, names if classes is None else classes, validation, **about)
        model = cls(**train_model(train, held_out, settings, device, progress))
        found = model.measure_following(train.images, train.labels)
        model._record_following(found)
        warn_unless_followed(found.mismatch)
        return model

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
        config = {
            "seed": 0,
            "start": "release",
            "checkpoint": Path(checkpoint).name,
            "averaged": averaged,
            "training": TrainingConfig().model_dump(include={"grey_noise", "latent_noise"}),
            "data": {"name": None, "classes": names, "dtype": "uint8", "extra": {}},
        }
        return cls(flow, prior, config)

    @classmethod
    def read(cls, folder: Path | str) -> Self:
        """Read a model from a folder written by :meth:`write`, onto the CPU.

        Raises:
            FormatError: `folder` is a file; or a file in it is missing, damaged, or of another format.
            ConfigError: the kind of flow is not known, perhaps because its extension was not loaded.
            Diverged: the files record a fit that diverged.
        """
        return cls(*read_model(Path(folder)))

    def write(self, folder: Path | str) -> None:
        """Write config.json and model.safetensors, together or not at all, as the stages of the workflow do.

        Raises:
            ValueError: :meth:`read` would refuse the config, e.g. because the prior has more classes than there are
                names.
        """
        write_model(Path(folder), self.flow, self.prior, self.config, self.digests)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Path | str, **options: Any) -> Self:
        """Read a model from a folder, of the package, or from a repository of the Hugging Face hub.

        Args:
            pretrained_model_name_or_path: folder written by :meth:`save_pretrained` or the workflow; if it does not
                exist, a model of the package, `digits` or `fashion_mnist`; otherwise, id of a repository.
            options: options of :func:`huggingface_hub.snapshot_download`: `revision`, `cache_dir`, `force_download`,
                `local_files_only`, `token`.

        Returns:
            the model, on the CPU.

        Raises:
            FormatError: as for :meth:`read`; or the repository does not exist, or is neither reachable nor cached.
            ConfigError, Diverged: as for :meth:`read`.
        """
        name = pretrained_model_name_or_path
        if isinstance(name, Path) or Path(name).exists():
            return cls.read(name)
        if name in PRETRAINED:
            return cls.read(PRETRAINED[name])
        from nfpi.model.hub import download_model

        return cls.read(download_model(name, **options))

    def save_pretrained(
        self, save_directory: Path | str, *, metrics: Mapping[str, Any] | None = None, license: str | None = None
    ) -> None:
        """Write config.json, model.safetensors and README.md, the model's card, into a folder.

        An existing README.md is kept, with a warning, as it may have been edited: delete it for a new card. The
        workflow's `model/` is such a folder, without a card.

        Args:
            save_directory: the folder.
            metrics: metrics of :meth:`evaluate` on test images, for the card.
            license: licence of the weights, for the card, e.g. "mit".

        Raises:
            ValueError: the metrics are not those of :meth:`evaluate`, or :meth:`from_pretrained` would refuse the
                model; nothing is written.
        """
        from nfpi.model.hub import make_card, write_card

        card = make_card(self, metrics, license)
        self.write(save_directory)
        write_card(card, Path(save_directory))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        metrics: Mapping[str, Any] | None = None,
        license: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        **options: Any,
    ) -> str:
        """Upload the files of :meth:`save_pretrained` to a repository of the Hugging Face hub.

        Args:
            repo_id: id of the repository, `owner/name`; created if it does not exist.
            metrics, license: for the card, as for :meth:`save_pretrained`.
            private, token: of :class:`huggingface_hub.HfApi`.
            options: options of :meth:`huggingface_hub.HfApi.upload_folder`: `revision`, `commit_message`, …

        Returns:
            URL of the commit.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, metrics=metrics, license=license)
            created = hub.create_repo(repo_id, private=private, exist_ok=True)  # a name without owner gets one
            url: str = hub.upload_folder(repo_id=created.repo_id, folder_path=folder, **options)
            return url

    # ---- what the model is ----------------------------------------------------------------------------------

    @property
    def data(self) -> dict[str, Any]:
        """Description of the training images: name, classes, dtype, extra."""
        data: dict[str, Any] = self.config["data"]
        return data

    @property
    def classes(self) -> list[str]:
        """Names of the K classes."""
        return list(self.data["classes"])

    @property
    def domain(self) -> Domain:
        """Domain of the training images: pixels, or latents of an autoencoder."""
        return find_domain(self.config)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.config["seed"])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of an image."""
        channels, height, width = self.flow.shape
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.prior.num_classes

    @property
    def device(self) -> torch.device:
        """Device that the model computes on."""
        return device_of(self.flow)

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device, and return it.

        Raises:
            DeviceError: torch finds no GPU.
        """
        device = torch.device(device)
        if device.type == "cuda":
            require_allocated_gpu(device)
        self.flow.to(device)
        prior, dtype = self.prior, precise_dtype(device)
        if prior.mean.device.type != "mps":  # which has no float64: cast before a move to it, after a move from it
            prior = prior.to(dtype=dtype)
        self.prior = prior.to(device).to(dtype=dtype)
        return self

    # ---- classification and densities -----------------------------------------------------------------------

    def log_prob(self, images: Images, labels: Labels | None = None) -> np.ndarray:
        """Return log p(x | y) of each image under its class or, without labels, under every class.

        Returns:
            (N,), or (N, K) without labels; float64, nats. The density is that of x in [−1, 1]^D.

        Raises:
            FloatingPointError: a density is not finite.
        """
        array = self._check_images(images)
        chosen = None if labels is None else inputs.check_labels(labels, self.classes, len(array))
        found, _ = self.measure(array)
        return found if chosen is None else found[np.arange(len(array)), chosen]

    def measure(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        """Return log p(x | y) of each image under every class, and its distance to the nearest class Gaussian.

        Returns:
            (N, K), in nats; and min_y (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D, (N,), about 1 for images of the classes; float64.

        Raises:
            FloatingPointError: a density is not finite.
        """
        array = self._check_images(images)
        found, distance = np.empty((len(array), self.num_classes)), np.empty(len(array))
        if self.prior.mean.device != self.device:  # only the flow was moved
            self.to(self.device)
        with inference.strict_inference(self.flow):
            for rows, z, log_abs_det in inference.encode_batches(self.flow, self.domain, array):
                log_prob = self.prior.log_prob(z)
                found[rows] = (log_prob + log_abs_det[:, None]).cpu().numpy()
                distance[rows] = self.prior.compute_distances(log_prob).amin(1).cpu().numpy()
        if not np.isfinite(found).all():
            index = int(np.flatnonzero(~np.isfinite(found).all(1))[0])
            raise FloatingPointError(f"images: expected finite densities, received NaN or infinity for image {index}")
        return found, distance

    def calibrate(self, images: Images, labels: Labels = None) -> Self:
        """Return a model that knows from validation images how sure it may be, with the same flow and Gaussians.

        Fits the temperature of :meth:`predict_proba` by the likelihood of the labels, the thresholds of :meth:`predict`
        and the quantiles of :meth:`decide`; they are `calibration` of the new config, and saved with the model.

        Args:
            images: not those of a later test; those that the model was trained on are left out.
            labels: (N,).

        Raises:
            ValueError: all are training images.
        """
        array, indices, _ = self._leave_out_training_images(images, labels)
        log_prob, distance = self.measure(array)
        found = Calibration.fit(log_prob, indices, distance)
        return replace(self, config={**self.config, "calibration": found.model_dump()})

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

        Returns:
            (N, K), float64, nats.
        """
        scaled = torch.from_numpy(self.log_prob(images) / (self._temperature or 1.0))
        return scaled.log_softmax(1).numpy()

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
            images: any.
            labels: (N,); None: the mixture of all classes, p(x) = Σ_y p(x | y) / K.

        Returns:
            (N,), float64; for a flow on latents of an autoencoder, bits per dimension of the latents; on vectors, those
            of the standardised vectors.
        """
        log_prob = self.log_prob(images, labels)
        if labels is None:
            log_prob = np.logaddexp.reduce(log_prob, 1) - math.log(self.num_classes)
        return self._compute_bits(log_prob)

    def _leave_out_training_images(self, images: Images, labels: Labels) -> tuple[np.ndarray, np.ndarray, int]:
        """Return images without those that the model was trained on, on which it does better than on others.

        How many are left out is logged. An image is known by its pixels; a mirrored or otherwise changed one is not.
        Of vectors, none is left out.

        Returns:
            the other M images, (M, H, W, C); the indices of their classes, (M,); and the number of those left out, 0 if
            the training images are not known (`digests`).

        Raises:
            ValueError: none is left.
        """
        given = self._make_set(images, labels)
        if self._is_of_vectors:  # of few discrete values, equal vectors are not the same sample
            return given.images, given.labels, 0
        if self.digests is None:
            logger.warning("the training images of this model are not known: none is left out")
            return given.images, given.labels, 0
        seen = np.isin(digest_images(given.images), self.digests)
        if seen.all():
            raise ValueError(
                f"images: expected some that the model was not trained on, received {len(given)} of its training images"
            )
        if seen.any():
            logger.warning("left out %d of %d images, on which the model was trained", seen.sum(), len(given))
        return given.images[~seen], given.labels[~seen], int(seen.sum())

    def evaluate(self, images: Images, labels: Labels = None) -> dict[str, Any]:
        """Measure the model on labelled images, without those that it was trained on, on which it does better.

        Vectors of the training data are not recognised, and are measured.

        Returns:
            `n`, the number of images measured, and `left_out`, that of training images among them; `nf_acc` and
            `nf_top5`, percentages of those whose class is the likeliest, or among the five likeliest;
            `nf_acc_interval`, Wilson's 95 % interval; `bits_per_dim`, the mean under the images' own classes; `ece`,
            the expected calibration error in percent, without temperature, and after :meth:`calibrate`
            `ece_calibrated`, with it; `classes`, from the name of each class to its `n`, `nf_acc` and
            `nf_acc_interval`; `worst_class_acc`, the lowest accuracy of a class, and `worst_class`, its name.

        Raises:
            ValueError: all are training images.
        """
        from nfpi.results.metrics import compute_metrics
        from nfpi.results.statistics.intervals import wilson_interval

        def score(correct: np.ndarray) -> dict[str, Any]:
            accuracy = 100 * float(correct.mean())
            interval = wilson_interval(accuracy, len(correct))
            return {"n": len(correct), "nf_acc": accuracy, "nf_acc_interval": interval}

        array, indices, left_out = self._leave_out_training_images(images, labels)
        log_prob, truth = torch.from_numpy(self.log_prob(array)), torch.from_numpy(indices)
        ranked = (log_prob.topk(min(5, self.num_classes), 1).indices == truth[:, None]).numpy()
        classes = {self.classes[label]: score(ranked[indices == label, 0]) for label in np.unique(indices)}
        worst = min(classes, key=lambda name: classes[name]["nf_acc"])
        return {
            "left_out": left_out,
            **score(ranked[:, 0]),
            "nf_top5": 100 * float(ranked.any(1).mean()),
            "bits_per_dim": float(self._compute_bits(log_prob.gather(1, truth[:, None]).squeeze(1).numpy()).mean()),
            **compute_metrics(["ece", "ece_calibrated"], log_prob, truth, self._temperature),
            "worst_class_acc": classes[worst]["nf_acc"],
            "worst_class": worst,
            "classes": classes,
        }

    # ---- latents, samples, variants -------------------------------------------------------------------------

    def encode(self, images: Images) -> np.ndarray:
        """Return the latents z = f(x).

        Returns:
            (N, D), float32; flattened in the order (C, H, W), like the means (K, D) of the prior.
        """
        array = self._check_images(images)
        found = np.empty((len(array), math.prod(self.flow.shape)), np.float32)
        with inference.strict_inference(self.flow):
            for rows, z, _ in inference.encode_batches(self.flow, self.domain, array):
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
        checked = inputs.check_latents(latents, self.flow.shape)
        with inference.strict_inference(self.flow):
            images = np.concatenate(list(inference.decode_batches(self.flow, self.domain, checked)))
        return self._return_images(images)

    def sample(self, labels: Labels, temperature: float = 1.0, generator: torch.Generator | None = None) -> np.ndarray:
        """Draw images f⁻¹(z), z ~ N(μ_y, T² Σ_y).

        Args:
            labels: (N,), the class of each image.
            temperature: T ≥ 0; below 1, images are more typical and less varied.
            generator: random number generator; None: torch's default one.

        Returns:
            (N, H, W, C), uint8, or float16 for latents of an autoencoder. A flow that was trained with `grey_noise`
            learns images with this noise, whose mean, `grey_noise` / 2 of the value range, is subtracted; images
            of the stage `generate` keep it.

        Raises:
            ValueError: a label is not a class, or the temperature is not a number of at least 0.
            FloatingPointError: images are still infinite or NaN after several draws of their latents.
        """
        if not (math.isfinite(temperature) and temperature >= 0):
            raise ValueError(f"temperature: expected a number of at least 0, received {temperature!r}")
        indices = torch.from_numpy(inputs.check_labels(labels, self.classes))
        with inference.strict_inference(self.flow):
            drawn = sample_images(
                self.flow,
                self.prior,
                indices,
                temperature=float(temperature),
                seed=inference.draw_seed(generator),
                batch_size=inference.choose_batch_size(self.flow),
                domain=self.domain,
            )
            found = np.concatenate([images.permute(0, 2, 3, 1).numpy() for images, _ in drawn])
        return self._return_images(self.domain.subtract_noise(found))

    def augment(
        self, images: Images, labels: Labels = None, *, generator: torch.Generator | None = None, **settings: Any
    ) -> np.ndarray:
        """Make variants of images by mixing latents of a class (NFA, §5.3), see :mod:`nfpi.augmentation`.

        The principal axes of a class are computed from its images in `images`, and each image is mixed only with
        others of its class in `images`: pass all images of a class in one call.

        Args:
            images: at least two of each class.
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
        config = parse_settings(NfaConfig, {"batch_size": inference.choose_batch_size(self.flow), **settings})
        given = self._make_set(images, labels)
        found = np.empty((len(given), config.variants, *self.shape), given.images.dtype)
        with inference.strict_inference(self.flow):
            seed = inference.draw_seed(generator)
            for places, variants in augment_images(self.flow, given, config, seed=seed, domain=self.domain):
                found[places] = variants.permute(0, 1, 3, 4, 2).numpy()
        return self._return_images(found)

    # ---- the Gaussians among the latents --------------------------------------------------------------------

    def measure_following(self, images: Images, labels: Labels = None) -> Following:
        """Measure how the latents of images lie in the Gaussians of their classes.

        If the mismatch of training images exceeds 0.1 bits/dim (`nfpi.config.metrics.MISMATCH_LIMIT`), the flow
        does not follow its Gaussians: their samples lie where there are few images.

        Args:
            images: at least two of each class; of the training images, without augmentation.
            labels: (N,).

        Raises:
            ValueError: a class has too few images.
        """
        return measure_following(self.prior, self._collect_statistics(self._make_set(images, labels)))

    def refit(self, images: Images, labels: Labels = None, how: Refit = "moments") -> Self:
        """Return a model with the same flow, and with Gaussians estimated again from the latents of images.

        What the config says of the former Gaussians is left out: `validation` and `calibration`.

        Args:
            images: at least two of each class: the training images, without augmentation.
            labels: (N,).
            how: `moments`: means and variances of each class; `prior`: by the method of the prior with its λ.

        Raises:
            ValueError: a class has too few images; or the method of the prior is not known, or learns the Gaussians
                along with the flow.
            Diverged: the fit diverged.
        """
        given = self._make_set(images, labels)
        statistics = self._collect_statistics(given)
        prior, config = estimate_again(self.config, statistics, how)
        digests = None if self.digests is None else np.union1d(self.digests, digest_images(given.images))
        model = replace(self, prior=prior, config=config, digests=digests)
        model._record_following(measure_following(model.prior, statistics))
        return model

    def _record_following(self, found: Following) -> None:
        """Record β and mismatch of the training images in the config."""
        self.config["following"] = {"beta": found.beta, "mismatch": found.mismatch}

    def _collect_statistics(self, images: ImageSet) -> ClassStatistics:
        """Collect the statistics of the latents of at least two images of each class.

        Unlike for densities, each image gets new dequantisation noise, from the model's seed: under a shared noise, the
        variance of a constant pixel would be 0.
        """
        with inference.strict_inference(self.flow):
            statistics = collect_statistics(
                self.flow,
                images,
                batch_size=inference.choose_batch_size(self.flow),
                seed=self.seed,
                domain=self.domain,
                covariance=self.prior.is_full,
            )
        statistics.check_counts()
        return statistics

    def _check_images(self, images: Images) -> np.ndarray:
        if self._is_of_vectors and getattr(images, "ndim", 0) != 4:  # otherwise checked before
            return inputs.check_vectors(images, self.flow.shape[0], columns=self.data["extra"].get("columns"))
        loaded = inputs.load_images(images, self.flow.shape, resize=self.resize)
        return inputs.check_images(loaded, self.flow.shape, self.domain.dtype)

    @property
    def _is_of_vectors(self) -> bool:
        return self.domain.dtype == VectorDomain.dtype

    def _return_images(self, images: np.ndarray) -> np.ndarray:
        """Return images (..., H, W, C) as they are, or vectors as (..., D)."""
        return images[..., 0, 0, :] if self._is_of_vectors else images

    def _make_set(self, images: Images, labels: Labels) -> ImageSet:
        images, labels = inputs.load_labelled_images(images, labels, self.classes, self.flow.shape, resize=self.resize)
        array = self._check_images(images)
        return ImageSet(array, inputs.check_labels(labels, self.classes, len(array)), self.data)

    def _compute_bits(self, log_prob: np.ndarray) -> np.ndarray:
        dimensions = math.prod(self.flow.shape)
        return self.domain.bits_per_dim(torch.from_numpy(-log_prob), dimensions).numpy()
