"""Evaluation of a flow under its prior: NF-Acc, top-5 accuracy and bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nfpi.data.batches import load_batches
from nfpi.data.domain import Domain
from nfpi.data.store import ImageSet
from nfpi.flows.bijection import ImageFlow, device_of, evaluating
from nfpi.linalg import precise_device, precise_dtype
from nfpi.priors.gaussian import GaussianPrior
from nfpi.priors.statistics import ClassStatistics
from nfpi.runtime.precision import full_precision
from nfpi.runtime.randomness import make_generator


@dataclass(frozen=True)
class FlowScores:
    """Accuracies and densities of a flow on N images of K classes.

    Attributes:
        nf_acc: percentage of images whose label is argmax_y log p(x | y).
        nf_top5: percentage of images whose label is among the five likeliest classes.
        bits_per_dim: mean of −log₂ p(x | y) per dimension under the images' own classes, with p the density of pixels
            on the scale of their 256 levels, or of an autoencoder's unscaled latents.
        own_distance: mean of (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D under the images' own classes.
        n: number of images.
        log_prob: log p(x | y) = log p(z | y) + log |det ∂z/∂x| of all classes, (N, K), on the CPU: density of the
            flow's inputs, pixels in [-1, 1] or latents of an autoencoder.
        labels: labels of the images, (N,), on the CPU.
        distance: (z − μ_y)ᵀ Σ_y⁻¹ (z − μ_y) / D to the nearest class, (N,), on the CPU.
    """

    nf_acc: float
    nf_top5: float
    bits_per_dim: float
    own_distance: float
    n: int
    log_prob: Tensor = field(compare=False, repr=False)
    labels: Tensor = field(compare=False, repr=False)
    distance: Tensor = field(compare=False, repr=False)


def check_shapes(flow: ImageFlow, prior: GaussianPrior, image_set: ImageSet) -> None:
    """Check that flow, prior and images agree in size and number of classes.

    Raises:
        ValueError: they differ.
    """
    if flow.shape != image_set.shape:
        raise ValueError(f"images: expected (C, H, W) = {flow.shape} for this flow, received {image_set.shape}")
    expected = (image_set.num_classes, torch.Size(image_set.shape).numel())
    if tuple(prior.mean.shape) != expected:
        raise ValueError(f"prior: expected (K, D) = {expected} for these images, received {tuple(prior.mean.shape)}")


def evaluate_flow(
    flow: ImageFlow,
    prior: GaussianPrior,
    image_set: ImageSet,
    *,
    batch_size: int,
    seed: int,
    domain: Domain,
) -> FlowScores:
    """Evaluate a flow on images with the dequantisation noise of their domain, without augmentation.

    The noise depends on the seed and, as it is drawn batch by batch, on the batch size.

    Raises:
        ValueError: flow, prior and images do not fit together, or there are no images.
        FloatingPointError: the images' mean likelihood in their own classes is not finite, or one in another is NaN.
    """
    (scores,) = evaluate_priors(flow, [prior], image_set, batch_size=batch_size, seed=seed, domain=domain)
    return scores


@torch.no_grad()
@full_precision()
def evaluate_priors(
    flow: ImageFlow,
    priors: Sequence[GaussianPrior],
    image_set: ImageSet,
    *,
    batch_size: int,
    seed: int,
    domain: Domain,
) -> list[FlowScores]:
    """Evaluate a flow under each of several priors as :func:`evaluate_flow` does, in one pass over the images."""
    for prior in priors:
        check_shapes(flow, prior, image_set)
    if not len(image_set):
        raise ValueError("images: expected at least one to evaluate the flow on, received none")
    device = device_of(flow)
    tallies = [_Tally(prior.to(dtype=precise_dtype(device)).to(device)) for prior in priors]
    for z, log_abs_det, labels in _encode(flow, image_set, batch_size, seed, domain):
        for tally in tallies:
            tally.add(z, log_abs_det, labels)
    dimensions = torch.Size(image_set.shape).numel()
    return [tally.finish(domain, dimensions) for tally in tallies]


@dataclass
class _Tally:
    """What the batches seen so far add up to under a prior."""

    prior: GaussianPrior
    correct: int = 0
    among_five: int = 0
    nll: float = 0.0
    own_distance: float = 0.0
    log_probs: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    distances: list[Tensor] = field(default_factory=list)

    def add(self, z: Tensor, log_abs_det: Tensor, labels: Tensor) -> None:
        """Add a batch of latents, (B, C, H, W), with log |det ∂z/∂x| and labels, (B,)."""
        log_prob, own = self.prior.log_prob(z), labels[:, None]
        hits = log_prob.topk(min(5, self.prior.num_classes), 1).indices == own
        distances = self.prior.compute_distances(log_prob)
        own_log_prob = (log_prob.gather(1, own).squeeze(1) + log_abs_det).sum()
        counts = (hits[:, 0].sum().to(log_prob), hits.sum().to(log_prob))
        # one tensor: each number that the host reads makes a GPU wait
        sums = torch.stack([*counts, own_log_prob, distances.gather(1, own).sum()]).cpu().tolist()
        self.correct += int(sums[0])
        self.among_five += int(sums[1])
        self.nll -= sums[2]
        self.own_distance += sums[3]
        self.log_probs.append((log_prob + log_abs_det[:, None]).cpu())
        self.labels.append(labels.cpu())
        self.distances.append(distances.amin(1).cpu())

    def finish(self, domain: Domain, dimensions: int) -> FlowScores:
        """Return the scores of all images, which have D = `dimensions`.

        Raises:
            FloatingPointError: see :func:`evaluate_flow`.
        """
        log_prob, labels = torch.cat(self.log_probs), torch.cat(self.labels)
        n = len(labels)
        bits = float(domain.bits_per_dim(torch.tensor(self.nll / n, dtype=torch.float64), dimensions))
        if not math.isfinite(bits):
            raise FloatingPointError(f"evaluation: expected finite likelihoods, received a mean of {bits} bits/dim")
        if log_prob.isnan().any():  # topk ranks a NaN first
            raise FloatingPointError("evaluation: expected finite likelihoods, received NaN for a wrong class")
        accuracies = 100 * self.correct / n, 100 * self.among_five / n
        return FlowScores(*accuracies, bits, self.own_distance / n, n, log_prob, labels, torch.cat(self.distances))


@torch.no_grad()
@full_precision()
def collect_statistics(
    flow: ImageFlow,
    image_set: ImageSet,
    *,
    batch_size: int,
    seed: int,
    domain: Domain,
    covariance: bool = False,
) -> ClassStatistics:
    """Collect the statistics of the latents of images, with the noise of :func:`evaluate_flow`, in float64.

    Args:
        covariance: whether they include full covariances.
    """
    dimensions = torch.Size(image_set.shape).numel()
    statistics = ClassStatistics.empty(image_set.num_classes, dimensions, covariance, precise_device(device_of(flow)))
    for z, _, labels in _encode(flow, image_set, batch_size, seed, domain):
        statistics.update(z, labels)
    return statistics


@torch.no_grad()
@full_precision()
def measure_unknown(
    flow: ImageFlow,
    prior: GaussianPrior,
    image_set: ImageSet,
    *,
    batch_size: int,
    seed: int,
    domain: Domain,
) -> tuple[Tensor, Tensor]:
    """Compute log p(x | y), (N, K), and the distance to the nearest class, (N,), as in :class:`FlowScores`.

    For images unlike those that the flow has learned, they may not be finite: −1e300 and 1e300, which rank such images
    last, replace them.
    """
    device = device_of(flow)
    prior, log_probs, distances = prior.to(dtype=precise_dtype(device)).to(device), [], []
    for z, log_abs_det, _ in _encode(flow, image_set, batch_size, seed, domain):
        log_prob = prior.log_prob(z)
        log_probs.append((log_prob + log_abs_det[:, None]).cpu().double())
        distances.append(prior.compute_distances(log_prob).amin(1).cpu().double())
    return _replace_infinite(torch.cat(log_probs), -1e300), _replace_infinite(torch.cat(distances), 1e300)


def _replace_infinite(values: Tensor, value: float) -> Tensor:
    return values.nan_to_num(nan=value, posinf=value, neginf=value)


def _encode(
    flow: ImageFlow, image_set: ImageSet, batch_size: int, seed: int, domain: Domain
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield latents, log |det ∂z/∂x| and labels of all images, batch by batch, on its device, in evaluation mode."""
    device = device_of(flow)
    with evaluating(flow):
        for index, (images, labels) in enumerate(load_batches(image_set, batch_size, seed=seed)):
            generator = make_generator(device, seed, "evaluate", index)
            z, log_abs_det = flow(domain.to_flow(images.to(device), generator))
            yield z, log_abs_det, labels.to(device)
