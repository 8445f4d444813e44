"""A class-conditional flow as a scikit-learn estimator, e.g. for cross_val_score and Pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nfpi.flows.dequantization import GREY_LEVELS
from nfpi.model import ClassConditionalFlow
from nfpi.model.inputs import (
    check_labels,
    check_vectors,
    load_images,
    load_labelled_images,
    load_training_images,
    to_array,
)


@dataclass(eq=False, repr=False)
class FlowClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Classify images by argmax_y log p(x | y) of a :class:`nfpi.ClassConditionalFlow`.

    X are vectors (N, D); or images (N, H, W, C), grey ones also (N, H, W), unless W is 1 to 4, or (N, H·W·C) if `shape`
    is given. The values of images are whole numbers from 0 to 255, of any dtype. X may also be paths of image files (an
    array of them for cross-validation), a folder or a `Dataset`, as for :class:`nfpi.ClassConditionalFlow`. Labels y
    are of any type that scikit-learn accepts as classes; None: those of the folder or data set.

    Args:
        shape: (H, W, C) of images that are passed as rows; None: rows are vectors.
        weight, relative_weight, epochs, flow, training, prior, flip, device: see :meth:`nfpi.ClassConditionalFlow.fit`.
        seed: seed of all random numbers.
        progress: whether to show a progress bar.

    Attributes:
        classes_: the K classes, sorted.
        model_: the fitted :class:`nfpi.ClassConditionalFlow`.
        n_features_in_: size of X's second axis, by scikit-learn's convention.

    Examples:
        >>> import numpy as np
        >>> from nfpi.sklearn import FlowClassifier
        >>> images = np.random.default_rng(0).integers(0, 128, (40, 16), dtype=np.uint8)
        >>> images[20:] += 127
        >>> classifier = FlowClassifier(shape=(4, 4, 1), epochs=10)
        >>> classifier.fit(images, ["dark"] * 20 + ["light"] * 20).predict(images[[0, -1]]).tolist()
        ['dark', 'light']
    """

    shape: tuple[int, int, int] | None = None
    _: KW_ONLY
    weight: float | None = None
    relative_weight: float | None = None
    epochs: int | None = None
    flow: str | Mapping[str, Any] | None = None
    training: Mapping[str, Any] | None = None
    prior: str | Mapping[str, Any] | None = None
    flip: bool = False
    seed: int = 0
    device: str | None = None
    progress: bool = False

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Any, y: Any = None) -> Self:
        """Fit a flow to images and their classes.

        Raises:
            ValueError: X, y or a setting is invalid.
            Diverged: the fit of the Gaussians or the training diverged.
        """
        X, y, _ = load_training_images(X, y, progress=self.progress)
        X, y = validate_data(self, X, y, dtype=None, allow_nd=True)
        check_classification_targets(y)
        images = self._convert_images(X)
        self.classes_, indices = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: expected two classes or more, received 1 class: {self.classes_[0]}")
        options = self.get_params(deep=False)
        del options["shape"]
        names = [str(name) for name in self.classes_]
        self.model_ = ClassConditionalFlow.fit(images, indices, classes=names, **options)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the likeliest class of each image, (N,)."""
        indices = self.predict_log_proba(X).argmax(1)
        classes: np.ndarray = self.classes_[indices]
        return classes

    def decision_function(self, X: Any) -> np.ndarray:
        """Return log p(x | y), (N, K), in the order of `classes_`.

        Of two classes, half of log p(x | second) − log p(x | first), (N,), which scikit-learn takes for the logits ±x.
        `CalibratedClassifierCV(FrozenEstimator(classifier), method="temperature")` then finds the temperature of
        :meth:`nfpi.ClassConditionalFlow.calibrate`.
        """
        images = self._validate_images(X)
        log_prob = self.model_.log_prob(images)
        return (log_prob[:, 1] - log_prob[:, 0]) / 2 if len(self.classes_) == 2 else log_prob

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return log p(y | x) under equal class frequencies, (N, K), in the order of `classes_`."""
        images = self._validate_images(X)
        return self.model_.predict_log_proba(images)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return p(y | x) under equal class frequencies, (N, K)."""
        probabilities: np.ndarray = np.exp(self.predict_log_proba(X))
        return probabilities

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy, the share of images whose predicted class is y."""
        if y is None:
            check_is_fitted(self)
            model = self.model_
            X, labels = load_labelled_images(X, None, model.classes, model.flow.shape, resize=model.resize)
            names = None if labels is None else list(map(str, to_array(labels).tolist()))
            y = self.classes_[check_labels(names, model.classes)]
        return float(super().score(X, y, sample_weight))

    def _validate_images(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = load_images(X, self.model_.flow.shape, resize=self.model_.resize)
        return self._convert_images(validate_data(self, X, dtype=None, allow_nd=True, reset=False))

    def _convert_images(self, X: np.ndarray) -> np.ndarray:
        """Convert X to 8-bit images, (N, H, W, C) or (N, H, W), unless these are vectors."""
        if X.dtype.kind not in "uif" and X.dtype != np.bool_:
            X = X.astype(np.float64)  # raises TypeError or ValueError for what is no number
        if X.ndim == 2 and self.shape is None:
            return check_vectors(X, what="X")[:, 0, 0]
        whole = X.astype(np.uint8) if X.min() >= 0 and X.max() < GREY_LEVELS else np.zeros(0, np.uint8)
        if whole.shape != X.shape or (whole != X).any():
            raise ValueError(
                f"X: expected whole numbers from 0 to {GREY_LEVELS - 1}, received {X.dtype} from {X.min()} to {X.max()}"
            )
        if X.ndim > 2:
            return whole
        assert self.shape is not None
        if X.shape[1] != np.prod(self.shape):
            raise ValueError(f"X: expected {np.prod(self.shape)} values per image, {self.shape}, received {X.shape[1]}")
        return whole.reshape(len(X), *self.shape)
