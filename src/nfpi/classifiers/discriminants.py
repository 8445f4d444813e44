"""Classifiers of pixels or vectors that scikit-learn fits: what a flow must do better.

They are fitted before any training: their configuration has `epochs: 0`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nfpi.config.base import Settings
from nfpi.config.classifiers import QuadraticDiscriminantSettings


class LinearDiscriminant(nn.Module):
    """Linear discriminant of the pixels, with Ledoit and Wolf's shrinkage of their covariance.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) logits.
        image_size: S.
        settings: none.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int, settings: Settings) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size**2, num_classes)

    def _make_estimator(self) -> Any:
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")

    def fit(self, images: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> None:
        """Fit to normalised images (N, C, S, S) and their labels (N,); held-out images have no part in it."""
        found = self._make_estimator()
        found.fit(images.flatten(1).double().numpy(), labels.numpy())
        # of two classes, scikit-learn has the difference of their logits
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        with torch.no_grad():
            self.linear.weight[-len(found.coef_) :] = torch.from_numpy(found.coef_)
            self.linear.bias[-len(found.coef_) :] = torch.from_numpy(found.intercept_)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits."""
        logits: Tensor = self.linear(images.flatten(1))
        return logits


class LogisticRegression(LinearDiscriminant):
    """Multinomial logistic regression: the softmax of linear logits, with scikit-learn's default L2 penalty."""

    def _make_estimator(self) -> Any:
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)


class QuadraticDiscriminant(nn.Module):
    """A Gaussian of the pixels for each class, which differ on the first A principal axes only.

    On these axes, class y has its mean μ_y and its covariance Σ_y with Ledoit and Wolf's shrinkage. On the D − A other
    axes, all classes share the mean of all images and one variance v, so that

        log p(x | y) = log N(a; μ_y, Σ_y) − (|r|² / v + (D − A) log 2πv) / 2,

    where a holds the coordinates of x − mean on the axes, and r is what is left of x − mean.

    Args:
        num_classes: K.
        in_channels: C of the images, (B, C, S, S) → (B, K) log p(x | y).
        image_size: S.
        settings: how many axes there may be.
    """

    is_density = True
    """the outputs are log p(x | y) of dequantised, normalised images"""

    def __init__(
        self, num_classes: int, in_channels: int, image_size: int, settings: QuadraticDiscriminantSettings
    ) -> None:
        super().__init__()
        self._candidates = settings.axes
        dimensions = in_channels * image_size**2
        kept = min(max(settings.axes), dimensions)
        self.axes = _make_parameter(kept, dimensions)
        self.centre = _make_parameter(dimensions)
        self.mean = _make_parameter(num_classes, kept)
        self.whitening = _make_parameter(num_classes, kept, kept)
        self.variance = _make_parameter()

    def fit(self, images: Tensor, labels: Tensor, held_out: Tensor, held_out_labels: Tensor) -> None:
        """Fit to images (N, C, S, S) and their labels (N,), with the A of highest accuracy on held-out images.

        Of equal ones, and without held-out images, A is the largest.
        """
        from sklearn.decomposition import PCA

        pixels, classes = images.flatten(1).double().numpy(), labels.numpy()
        num_images, dimensions = pixels.shape
        # fewer images than pixels have no variance beyond their first N − 1 axes, and hardly any on the last of these
        most = dimensions if num_images > dimensions else max(num_images // 2, 1)
        candidates = sorted({min(axes, most) for axes in self._candidates}, reverse=True)
        pca = PCA(candidates[0], random_state=0).fit(pixels)
        total = float(((pixels - pca.mean_) ** 2).sum() / len(pixels))
        accuracies = {}
        for count in candidates if len(held_out) else ():
            self._fit_gaussians(pca.components_, pca.mean_, pixels, classes, count, total)
            accuracies[count] = float((self(held_out).argmax(1) == held_out_labels).double().mean())
        best = max(accuracies, key=accuracies.__getitem__, default=candidates[0])
        self._fit_gaussians(pca.components_, pca.mean_, pixels, classes, best, total)

    def _fit_gaussians(
        self, axes: np.ndarray, centre: np.ndarray, pixels: np.ndarray, classes: np.ndarray, count: int, total: float
    ) -> None:
        """Fit the Gaussians on the first `count` axes; on the other stored ones, they are those of all other axes.

        Args:
            axes: principal axes, (A', D).
            centre: mean of the images, (D,).
            pixels: images, (N, D).
            classes: their labels, (N,).
            count: A.
            total: variance of the images, summed over D.
        """
        from sklearn.covariance import LedoitWolf

        places = (pixels - centre) @ axes[:count].T
        others = len(centre) - count
        self.variance.fill_((total - float((places**2).sum() / len(places))) / others if others else 1.0)
        self.centre.copy_(torch.from_numpy(centre))
        self.axes.zero_()[:count] = torch.from_numpy(axes[:count])
        self.mean.zero_()
        self.whitening.zero_()
        for label in range(len(self.mean)):
            found = LedoitWolf().fit(places[classes == label])
            self.mean[label, :count] = torch.from_numpy(found.location_)
            factor = np.linalg.cholesky(found.covariance_)
            self.whitening[label, :count, :count] = torch.from_numpy(np.linalg.inv(factor))

    def forward(self, images: Tensor) -> Tensor:
        """Compute log p(x | y) of each class, (B, K), in float64."""
        centred = images.flatten(1).double() - self.centre
        places = centred @ self.axes.T
        rest = centred.square().sum(1) - places.square().sum(1)
        white = torch.einsum("kij,bkj->bki", self.whitening, places[:, None] - self.mean)
        scales = self.whitening.diagonal(dim1=1, dim2=2)
        used = scales[0] > 0
        others = centred.shape[1] - int(used.sum())
        shared = rest / self.variance + others * self.variance.log() + centred.shape[1] * math.log(2 * math.pi)
        own = white.square().sum(2) - 2 * scales[:, used].log().sum(1)
        log_prob: Tensor = -(own + shared[:, None]) / 2
        return log_prob


def _make_parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)
