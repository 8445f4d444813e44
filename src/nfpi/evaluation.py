"""NF-Acc, top-5 and bits a dimension of a flow under its prior."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from nfpi.data.domain import Domain
from nfpi.data.store import ImageSet
from nfpi.data.batches import batches
from nfpi.flows.matrix_exponential import MatrixExponentialFlow
from nfpi.linalg import precise_dtype
from nfpi.priors.gaussian import GaussianPrior
from nfpi.runtime.randomness import generator_for


@dataclass(frozen=True)
class FlowScores:
    """How well a flow classifies and models images.

    Attributes:
        nf_acc: percentage of images with argmax_y log p(z | y) = their label.
        nf_top5: percentage with their label among the five likeliest.
        bits_per_dim: −log₂ p(x | y) a dimension, under the image's own class, as their domain counts it.
        n: number of images.
    """

    nf_acc: float
    nf_top5: float
    bits_per_dim: float
    n: int


def check_fit(flow: MatrixExponentialFlow, prior: GaussianPrior, image_set: ImageSet) -> None:
    """Make sure that flow, prior and images are of one size and as many classes.

    Raises:
        ValueError: they are not.
    """
    if flow.shape != image_set.shape:
        raise ValueError(f"images: expected (C, H, W) = {flow.shape} for this flow, received {image_set.shape}")
    expected = (image_set.num_classes, torch.Size(image_set.shape).numel())
    if tuple(prior.mean.shape) != expected:
        raise ValueError(f"prior: expected (K, D) = {expected} for these images, received {tuple(prior.mean.shape)}")


@torch.no_grad()
def evaluate_flow(
    flow: MatrixExponentialFlow,
    prior: GaussianPrior,
    image_set: ImageSet,
    *,
    batch_size: int,
    seed: int,
    domain: Domain,
    device: torch.device,
) -> FlowScores:
    """Score a flow on images that get their domain's noise and no augmentation.

    The noise depends on the seed and, as it is drawn a batch at a time, on the batch size.

    Raises:
        ValueError: flow, prior and images do not fit together.
        FloatingPointError: a likelihood is not finite.
    """
    check_fit(flow, prior, image_set)
    was_training = flow.training
    flow.eval()
    prior = prior.to(dtype=precise_dtype(device)).to(device)
    correct = among_five = 0
    nll = 0.0
    best = min(5, prior.num_classes)
    for index, (images, labels) in enumerate(batches(image_set, batch_size, seed=seed)):
        labels = labels.to(device)
        generator = generator_for(device, seed, "evaluate", index)
        z, log_abs_det = flow(domain.to_flow(images.to(device), generator))
        scores = prior.log_prob(z)
        ranked = scores.topk(best, 1).indices == labels[:, None]
        correct += int(ranked[:, 0].sum())
        among_five += int(ranked.sum())
        nll -= float((scores.gather(1, labels[:, None]).squeeze(1) + log_abs_det).sum())
    flow.train(was_training)
    n = len(image_set)
    dimensions = torch.Size(image_set.shape).numel()
    bits = float(domain.bits_per_dim(torch.tensor(nll / n, dtype=torch.float64), dimensions))
    if not torch.isfinite(torch.tensor(bits)):
        raise FloatingPointError(f"evaluation: expected finite likelihoods, received a mean of {bits} bits/dim")
    return FlowScores(100 * correct / n, 100 * among_five / n, bits, n)
