from __future__ import annotations

import numpy as np
import pytest
import torch

from nfpi.data.batches import load_batches
from nfpi.data.domain import LatentDomain, PixelDomain
from nfpi.data.store import ImageSet
from nfpi.evaluation import FlowScores, evaluate_flow
from nfpi.flows import MatrixExponentialFlow
from nfpi.flows.dequantization import dequantize
from nfpi.priors import ClassStatistics, GaussianPrior
from nfpi.results.metrics import per_class_accuracy
from nfpi.runtime.randomness import make_generator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images(make_images) -> ImageSet:
    """Seven classes that overlap, so that scores lie well between 0 and 100 %."""
    return make_images((3, 8, 8), classes=7, per_class=12, noise=250)


@pytest.fixture(scope="module")
def flow(images: ImageSet) -> MatrixExponentialFlow:
    torch.manual_seed(0)
    flow = MatrixExponentialFlow((3, 8, 8), [1, 1], [1, 1], [8, 8])
    for x, _ in load_batches(images, 84, seed=0):
        flow.initialize(dequantize(x, make_generator(CPU, 0)))
    return flow


@pytest.fixture(scope="module")
def prior(images: ImageSet, flow: MatrixExponentialFlow) -> GaussianPrior:
    x, labels = next(iter(load_batches(images, 84, seed=0)))
    with torch.no_grad():
        statistics = ClassStatistics.from_latents(flow(dequantize(x, make_generator(CPU, 1)))[0], labels)
    blur = torch.randn(statistics.mean.shape, generator=make_generator(CPU, 2), dtype=torch.float64)
    return GaussianPrior(0.06 * statistics.mean + 0.5 * blur, 1 + statistics.variance)


def score(flow: MatrixExponentialFlow, prior: GaussianPrior, images: ImageSet, **changes) -> FlowScores:
    settings = {"batch_size": 32, "seed": 4, "domain": PixelDomain(0.05)} | changes
    return evaluate_flow(flow, prior, images, **settings)


def reference(flow: MatrixExponentialFlow, prior: GaussianPrior, images: ImageSet, batch_size: int) -> np.ndarray:
    """A loop over images' batches and classes: NF-Acc, top-5, bits/dim."""
    correct, among_five, bits = [], [], []
    for index, (x, labels) in enumerate(load_batches(images, batch_size, seed=0)):
        with torch.no_grad():
            z, log_abs_det = flow(dequantize(x, make_generator(CPU, 4, "evaluate", index), 0.05))
        log_probs = []
        for k in range(prior.num_classes):
            if prior.is_full:
                normal = torch.distributions.MultivariateNormal(prior.mean[k], prior.covariance[k])
            else:
                normal = torch.distributions.Independent(
                    torch.distributions.Normal(prior.mean[k], prior.variance[k].sqrt()), 1
                )
            log_probs.append(normal.log_prob(z.flatten(1).double()))
        log_probs = torch.stack(log_probs, 1)
        for row, label, change in zip(log_probs, labels.tolist(), log_abs_det.double(), strict=True):
            ranking = row.argsort(descending=True).tolist()
            correct.append(ranking[0] == label)
            among_five.append(label in ranking[:5])
            dimensions = images.images[0].size
            bits.append(float(-(row[label] + change)) / (dimensions * np.log(2)) + 7)
    return np.array([100 * np.mean(correct), 100 * np.mean(among_five), np.mean(bits)])


@pytest.mark.parametrize("batch_size", [84, 32, 5])
def test_scores_equal_those_of_a_loop_over_classes(flow, prior, images, batch_size):
    scores = score(flow, prior, images, batch_size=batch_size)
    expected = reference(flow, prior, images, batch_size)
    assert [scores.nf_acc, scores.nf_top5] == pytest.approx(expected[:2], abs=1e-9)
    assert scores.bits_per_dim == pytest.approx(expected[2], rel=1e-6)
    assert scores.n == 84
    assert 20 < scores.nf_acc < scores.nf_top5 < 100


@pytest.mark.parametrize("batch_size", [84, 32])
def test_the_log_probabilities_are_those_of_the_scores(flow, prior, images, batch_size):
    scores = score(flow, prior, images, batch_size=batch_size)
    assert scores.log_prob.shape == (84, 7)
    assert scores.log_prob.dtype == torch.float64
    assert torch.equal(scores.labels, torch.from_numpy(images.labels))
    accuracies = per_class_accuracy(scores.log_prob, scores.labels)
    assert float(accuracies.mean()) == pytest.approx(scores.nf_acc)  # as many images of each class
    own = scores.log_prob.gather(1, scores.labels[:, None])
    assert float(-own.mean()) / (192 * np.log(2)) + 7 == pytest.approx(scores.bits_per_dim, rel=1e-12)


def test_full_covariances_are_scored_too(flow, prior, images):
    root = torch.randn(7, 192, 192, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 30
    full = GaussianPrior(prior.mean, covariance=torch.diag_embed(prior.variance) + root @ root.mT)
    scores = score(flow, full, images)
    expected = reference(flow, full, images, 32)
    assert [scores.nf_acc, scores.nf_top5] == pytest.approx(expected[:2], abs=1e-9)
    assert scores.bits_per_dim == pytest.approx(expected[2], rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_with_five_classes_or_fewer_all_are_among_the_first_five(make_images, classes):
    images = make_images(classes=classes, per_class=8, noise=250)
    prior = GaussianPrior(torch.randn(classes, 64), torch.ones(classes, 64))
    scores = score(MatrixExponentialFlow((1, 8, 8), [1], [1], [8]), prior, images)
    assert scores.nf_top5 == 100
    assert scores.nf_acc < 100


def test_noise_depends_on_the_seed_and_on_how_images_are_batched(flow, prior, images):
    first = score(flow, prior, images)
    torch.manual_seed(77)
    assert score(flow, prior, images) == first
    others = [score(flow, prior, images, seed=5), score(flow, prior, images, batch_size=31)]
    for other in others:
        assert other.bits_per_dim != first.bits_per_dim
        assert other.bits_per_dim == pytest.approx(first.bits_per_dim, abs=0.01)


def test_colour_images_get_no_grey_noise(flow, prior, images):
    assert score(flow, prior, images, domain=PixelDomain(0.0)) == score(flow, prior, images, domain=PixelDomain(0.5))


def test_the_flow_is_left_in_its_mode(flow, prior, images):
    for training in (True, False):
        flow.train(training)
        score(flow, prior, images)
        assert flow.training is training


def test_a_likelihood_that_is_not_finite_is_refused(flow, prior, images):
    far = GaussianPrior(prior.mean.index_fill(0, torch.tensor([3]), 1e200), prior.variance)
    with pytest.raises(FloatingPointError, match="evaluation"):
        score(flow, far, images)


def test_nan_of_a_class_without_images_is_refused_too(flow, make_images):
    images = make_images((3, 8, 8), classes=7, per_class=2)
    without = ImageSet(images.images[images.labels != 3], images.labels[images.labels != 3], images.meta)
    mean = torch.zeros(7, 192, dtype=torch.float64)
    unknown = GaussianPrior(mean, torch.ones_like(mean))
    unknown.mean[3] = torch.nan
    with pytest.raises(FloatingPointError, match="nan"):
        score(flow, unknown, without)


def test_latents_are_scored_with_their_noise_on_the_scale_of_their_density(flow, prior, images):
    """No grey levels: log₂ p itself, without the seven bits of a grey level's width."""
    latents = ImageSet((images.images / 128 - 1).astype(np.float16), images.labels, images.meta)
    still, noisy = (LatentDomain(noise, torch.full((3, 8, 8), 2.0)) for noise in (0.0, 0.5))
    x = torch.from_numpy(latents.images).permute(0, 3, 1, 2).float()
    labels = torch.from_numpy(latents.labels)
    with torch.no_grad():
        z, log_abs_det = flow(x)
        log_prob = prior.log_prob_of(z.double(), labels) + log_abs_det
    scores = score(flow, prior, latents, domain=still)
    assert scores.bits_per_dim == pytest.approx(float(-log_prob.mean()) / (192 * np.log(2)), rel=1e-6)
    assert scores.nf_acc == pytest.approx(100 * float((prior.log_prob(z).argmax(1) == labels).double().mean()))
    assert score(flow, prior, latents, domain=noisy).bits_per_dim > scores.bits_per_dim + 0.01
