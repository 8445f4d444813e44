"""A trained classifier, read from its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.classifiers.data import resize_images
from nfpi.classifiers.preprocessing import Preprocessing
from nfpi.classifiers.registry import build_trained, stored_preprocessing
from nfpi.classifiers.scoring import RealLabels, Scores, score_classifier
from nfpi.config.classifiers import ClassifierConfig
from nfpi.data.store import ImageSet, Pixels
from nfpi.runtime.tensors import load_tensors


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
        config, model = build_trained(weights, header, path)
        return cls(model.to(device), config, stored_preprocessing(config, header, path), header, device)

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
        found: list[Tensor] = []
        hook = self._last_layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float().cpu()))
        try:
            self.score(self.resize(Pixels(image_set)))
        finally:
            hook.remove()
        return torch.cat(found)
