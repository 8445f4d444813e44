"""Trained classifiers: accuracy and class probabilities, also on the ReaL labels of ImageNet (Beyer et al., 2020)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.classifiers.data import resize_images
from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.registry import build_trained
from nfpi.config.classifiers import ClassifierConfig
from nfpi.data.batches import load_batches
from nfpi.data.store import ImageSet, Pixels, convert_images
from nfpi.runtime.randomness import make_generator
from nfpi.runtime.tensors import load_tensors

logger = logging.getLogger(__name__)

_VALIDATION_IMAGES = 50_000
_LARGEST_BATCH, _PIXELS_PER_BATCH = 500, 2**23


@dataclass(frozen=True)
class Scores:
    """Scores and class probabilities of N images.

    Attributes:
        top1: percentage of images whose largest logit is that of their label.
        top5: percentage with their label among the five largest logits (or K, where K < 5).
        log_prob: log p(y | x), the log-softmax of the logits, (N, K), on the CPU; of a model whose outputs are
            densities (`is_density`), log p(x | y) on the scale of the images' 256 levels, with uniform noise.
        labels: (N,), int64, on the CPU.
        real_top1, real_top5: top1 and top5 on the images that have ReaL labels, where any ReaL label of an image counts
            as correct; None: not scored on ReaL labels.
        bits_per_dim: mean of −log₂ p(x | y) per dimension under the images' own classes; None: not a density.
    """

    top1: float
    top5: float
    log_prob: Tensor = field(repr=False, compare=False)
    labels: Tensor = field(repr=False, compare=False)
    real_top1: float | None = None
    real_top5: float | None = None
    bits_per_dim: float | None = None


@torch.no_grad()
def score_classifier(
    model: nn.Module,
    image_set: ImageSet,
    preprocessing: Preprocessing,
    device: torch.device,
    real_labels: RealLabels | None = None,
    workers: int = 0,
) -> Scores:
    """Score a classifier in evaluation mode; every image counts once.

    Args:
        model: normalised images (B, C, H, W) → (B, K) logits or, with `is_density`, log p(x | y), on `device`.
        image_set: 8-bit images of one size, or vectors.
        preprocessing: how they are normalised.
        device: device of the model.
        real_labels: ReaL labels of these images, in their order; None: not scored on them.
        workers: number of processes that read images.
    """
    model.eval()
    channels, height, width = image_set.shape
    batch_size = max(1, min(_LARGEST_BATCH, _PIXELS_PER_BATCH // (height * width)))
    batches = load_batches(image_set, batch_size, seed=0, workers=workers, pin_memory=device.type == "cuda")
    normalize = preprocessing.make_normalizer(channels, device)
    is_density, noise = getattr(model, "is_density", False), make_generator("cpu", 0, "noise of classifiers")
    log_scale = preprocessing.compute_log_scale(image_set.shape)
    correct, among_five = 0, 0
    log_prob, all_labels = [], []
    for images, labels in batches:
        inputs = preprocessing.add_noise(images, noise) if is_density else images
        logits = model(normalize(inputs.to(device, non_blocking=True))).cpu()
        correct += int((logits.argmax(1) == labels).sum())
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        among_five += int((best == labels[:, None]).sum())
        log_prob.append(logits + log_scale if is_density else logits.float().log_softmax(1))
        all_labels.append(labels)
        if real_labels is not None:
            real_labels.add(logits)
    of_classes, own = torch.cat(log_prob), torch.cat(all_labels)
    nats = -of_classes.gather(1, own[:, None]).mean().item()
    return Scores(
        100 * correct / len(image_set),
        100 * among_five / len(image_set),
        of_classes,
        own,
        real_top1=None if real_labels is None else real_labels.accuracy(1),
        real_top5=None if real_labels is None else real_labels.accuracy(5),
        bits_per_dim=nats / (math.log(2) * channels * height * width) if is_density else None,
    )


@dataclass(frozen=True)
class LoadedClassifier:
    """A trained classifier.

    Attributes:
        model: the network, on `device`.
        config: settings, without those of initial weights.
        preprocessing: how images are resized and normalised.
        header: what its file says of its training.
        device: device of the network.
    """

    model: nn.Module
    config: ClassifierConfig
    preprocessing: Preprocessing
    header: Mapping[str, Any]
    device: torch.device

    @classmethod
    def read(cls, path: Path, device: torch.device) -> LoadedClassifier:
        """Read the file of :class:`nfpi.stages.train_classifier.TrainClassifier`.

        Raises:
            FormatError: it is damaged, or of another kind.
        """
        weights, header = load_tensors(path)
        config, model, preprocessing = build_trained(weights, header, path)
        return cls(model.to(device), config, preprocessing, header, device)

    @property
    def num_features(self) -> int:
        """Number of penultimate features, F."""
        return self._last_layer.in_features

    @property
    def _last_layer(self) -> nn.Linear:
        *_, last = (module for module in self.model.modules() if isinstance(module, nn.Linear))
        return last

    def resize(self, pixels: Pixels) -> ImageSet:
        """Return images in the size of the classifier."""
        return resize_images(pixels, self.config.image_size, self.preprocessing)

    def score(self, image_set: ImageSet, real_labels: RealLabels | None = None) -> Scores:
        """Score resized images, see :func:`score_classifier`."""
        return score_classifier(
            self.model, image_set, self.preprocessing, self.device, real_labels, self.config.workers
        )

    def extract_features(self, image_set: ImageSet) -> Tensor:
        """Return the inputs of the last linear layer for images of any size, (N, F), float32, on the CPU."""
        if self.config.image_size is None:
            size = self.header["size"]
            image_set = convert_images(image_set, (size["in_channels"], size["image_size"], size["image_size"]))
        found: list[Tensor] = []
        hook = self._last_layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float().cpu()))
        try:
            self.score(self.resize(Pixels(image_set)))
        finally:
            hook.remove()
        return torch.cat(found)


class RealLabels:
    """Accuracy on the ReaL labels, by timm's `RealLabelsImagenet`.

    Args:
        files: file names of the images, in the order of their logits, such as ILSVRC2012_val_00000001.JPEG.
        classes: names of the K classes, which are synsets of ImageNet, in the order of the logits.
        labels: JSON file with the ReaL labels of the first N validation images (ILSVRC2012_val_00000001, ...), where N
            is the number of `files`; None: those of all 50 000 validation images, which timm ships.

    Raises:
        ValueError: a file or a class is not one of ImageNet's validation set.
    """

    def __init__(self, files: Sequence[str], classes: Sequence[str], labels: Path | None = None) -> None:
        from timm.data import ImageNetInfo, RealLabelsImagenet  # slow to import, and rarely used

        names = [f"{Path(file).stem}.JPEG" for file in files]
        synsets = ImageNetInfo("imagenet-1k").label_names()
        # timm requires a name for every label
        rest = [""] * (_VALIDATION_IMAGES - len(files) if labels is None else 0)
        self.num_classes = len(synsets)
        self._scorer = RealLabelsImagenet(names + rest, labels, topk=(1, min(5, len(classes))))
        unknown = [name for name in names if name not in self._scorer.real_labels]
        unknown += [name for name in classes if name not in synsets]
        if unknown:
            raise ValueError(f"real_labels: expected those of ImageNet's validation set, received '{unknown[0]}'")
        self._columns = torch.tensor([synsets.index(name) for name in classes])

    def add(self, logits: Tensor) -> None:
        """Score the next B images by their logits, (B, K)."""
        imagenet_logits = torch.full((len(logits), self.num_classes), -torch.inf)
        imagenet_logits[:, self._columns] = logits.float().cpu()
        self._scorer.add_result(imagenet_logits)

    def accuracy(self, k: int) -> float:
        """Return the percentage of images for which a ReaL label is among the min(k, K) largest logits, k ∈ {1, 5}.

        Images without ReaL labels are left out.
        """
        accuracy: float = self._scorer.get_accuracy(min(k, len(self._columns)))
        return accuracy


def find_real_labels(pixels: Pixels) -> RealLabels | None:
    """Find the ReaL labels of images by the names of their files.

    Returns:
        The labels; None, with a warning, if the names are not known, as for sets that are stored as pixels.

    Raises:
        ValueError: a file or a class is not one of ImageNet's validation set.
    """
    images = pixels.image_set
    if pixels.file_names is None:
        logger.warning("%s: the names of the image files are not known: no score on ReaL labels", images.meta["name"])
        return None
    return RealLabels([str(name) for name in pixels.file_names], images.classes)
