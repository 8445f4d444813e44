import math
import re

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from nfpi.priors import GaussianPrior

KINDS = ["diagonal", "full"]


def _prior(kind, classes=3, dimensions=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    mean = 2 * torch.randn(classes, dimensions, generator=generator, dtype=dtype)
    if kind == "diagonal":
        return GaussianPrior(mean, torch.rand(classes, dimensions, generator=generator, dtype=dtype) + 0.2)
    factor = torch.randn(classes, dimensions, 2 * dimensions, generator=generator, dtype=dtype)
    return GaussianPrior(mean, covariance=factor @ factor.mT / dimensions)


def _distributions(prior):
    if prior.is_full:
        return [
            MultivariateNormal(mean, covariance) for mean, covariance in zip(prior.mean, prior.covariance, strict=True)
        ]
    return [Independent(Normal(mean, v.sqrt()), 1) for mean, v in zip(prior.mean, prior.variance, strict=True)]


def _latents(*shape, dtype=torch.float64):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_that_of_the_gaussians(kind):
    prior, z = _prior(kind), _latents(7, 4)
    expected = torch.stack([distribution.log_prob(z) for distribution in _distributions(prior)], 1)
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
def test_log_prob_of_labels_is_gathered_from_log_prob(kind, shape):
    prior, z, labels = _prior(kind), _latents(5, *shape), torch.tensor([2, 0, 0, 1, 2])
    expected = prior.log_prob(z).gather(1, labels[:, None]).squeeze(1)
    assert expected.shape == (5,)
    torch.testing.assert_close(prior.log_prob_of(z, labels), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_loses_nothing_far_from_the_origin(kind):
    """Squares of 1e6 cancel to distances of about 1."""
    prior, z = _prior(kind), _latents(6, 4)
    far = GaussianPrior(prior.mean + 1e6, *((prior.variance,) if kind == "diagonal" else (None, prior.covariance)))
    torch.testing.assert_close(far.log_prob(z + 1e6), prior.log_prob(z), rtol=1e-7, atol=1e-7)


def test_classes_of_float32_latents_are_scored_as_in_float64():
    """At D = 3072 the squares sum to thousands, and classes differ by less than float32 resolves of them."""
    generator = torch.Generator().manual_seed(0)
    prior = GaussianPrior(0.01 * torch.randn(5, 3072, generator=generator) + 3, torch.full((5, 3072), 0.5))
    z = prior.sample(torch.arange(5), generator=generator)
    scores = prior.log_prob(z)
    exact = prior.to(dtype=torch.float64).log_prob(z.double())
    scores, exact = (s - s.mean(1, keepdim=True) for s in (scores.double(), exact))
    torch.testing.assert_close(scores, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_likelihood(kind):
    prior, labels = _prior(kind), torch.tensor([1, 0, 2])
    z = _latents(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: prior.log_prob_of(z, labels), z)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments_of_their_class(kind):
    prior, count = _prior(kind), 40_000
    labels = torch.arange(3).repeat(count)
    samples = prior.sample(labels, generator=torch.Generator().manual_seed(0))
    assert samples.shape == (3 * count, 4)
    for index, distribution in enumerate(_distributions(prior)):
        own = samples[labels == index]
        covariance = prior.covariance[index] if prior.is_full else prior.variance[index].diag()
        assert ((own.mean(0) - prior.mean[index]).abs() < 5 * (distribution.variance / count).sqrt()).all()
        spread = (covariance.square() + torch.outer(distribution.variance, distribution.variance)) / count
        assert ((torch.cov(own.T) - covariance).abs() < 5 * spread.sqrt()).all()


@pytest.mark.parametrize("kind", KINDS)
def test_temperature_scales_the_deviations(kind):
    prior, labels = _prior(kind), torch.tensor([0, 1, 2, 2])

    def draw(temperature):
        return prior.sample(labels, temperature, torch.Generator().manual_seed(0)) - prior.mean[labels]

    assert not draw(0.0).any()
    torch.testing.assert_close(draw(0.7), 0.7 * draw(1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_come_from_the_generator_alone(kind):
    prior, labels = _prior(kind), torch.tensor([0, 2, 1])
    state = torch.get_rng_state()
    first = prior.sample(labels, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(3)
    assert torch.equal(first, prior.sample(labels, generator=torch.Generator().manual_seed(4)))
    assert not torch.equal(first, prior.sample(labels, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("kind", KINDS)
def test_precision_is_changed_by_to(kind):
    prior = _prior(kind).to(dtype=torch.float32)
    assert prior.mean.dtype == prior.variance.dtype == torch.float32
    assert prior.is_full == (kind == "full")
    assert prior.sample(torch.tensor([0])).dtype == torch.float32
    assert (prior.num_classes, prior.num_dimensions) == (3, 4)


def test_variance_of_full_covariances_is_their_diagonal():
    prior = _prior("full")
    assert torch.equal(prior.variance, torch.stack([covariance.diagonal() for covariance in prior.covariance]))


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "tensor", "place", "value"),
    [
        *((kind, "mean", (1, 3), value) for kind in KINDS for value in (torch.nan, torch.inf)),
        *(("diagonal", "variance", (1, 0), value) for value in (0.0, -1.0, torch.nan, torch.inf)),
        # above the diagonal, where Cholesky's decomposition does not look
        *(("full", "covariance", (1, 0, 3), value) for value in (0.5, torch.nan)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_check_names_the_class_and_what_is_wrong_in_it(kind, tensor, place, value, dtype):
    prior = _prior(kind).to(dtype=dtype)
    prior.check()
    getattr(prior, tensor)[place] = value
    with pytest.raises(ValueError, match=rf"prior: {tensor}.*class 1"):
        prior.check()


def test_check_names_the_class_whose_covariance_is_not_definite():
    prior = _prior("full")
    prior.covariance[1] = 1.0  # singular, with a fine diagonal
    prior.covariance[1, 0, 1] = prior.covariance[1, 1, 0] = 1.5
    with pytest.raises(ValueError, match="prior: covariance of class 1"):
        prior.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "variance or covariance"),
        ({"variance": torch.ones(3, 4), "covariance": torch.eye(4).expand(3, 4, 4)}, "variance or covariance"),
        ({"mean": torch.zeros(4), "variance": torch.ones(4)}, r"mean:.*\(4,\)"),
        ({"mean": torch.zeros(0, 4), "variance": torch.ones(0, 4)}, r"mean:.*\(0, 4\)"),
        ({"mean": torch.zeros(3, 0), "variance": torch.ones(3, 0)}, r"mean:.*\(3, 0\)"),
        ({"mean": torch.zeros(3, 4).long(), "variance": torch.ones(3, 4)}, "mean:.*torch.int64"),
        ({"variance": torch.ones(3, 4).long()}, "variance:.*torch.int64"),
        ({"variance": torch.ones(4)}, r"variance:.*\(4,\)"),
        ({"variance": torch.ones(1, 4)}, r"variance:.*\(1, 4\)"),
        ({"covariance": torch.ones(3, 4)}, r"covariance:.*\(3, 4\)"),
    ],
)
def test_tensors_that_hold_no_gaussians_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaussianPrior(**{"mean": torch.zeros(3, 4)} | arguments)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(5, 1), (5, 3), (5,), (4,), (5, 1, 2, 3), (1, 5, 4), ()])
def test_latents_of_another_size_are_refused(kind, shape):
    prior = _prior(kind)
    for compute in (prior.log_prob, lambda z: prior.log_prob_of(z, torch.zeros(5, dtype=torch.long))):
        with pytest.raises(ValueError, match=rf"^latents: .* 4 .*{re.escape(str(shape))}$"):
            compute(torch.zeros(shape))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1,), (4,), (5, 1), ()])
def test_labels_of_another_shape_than_the_latents_are_refused(kind, shape):
    with pytest.raises(ValueError, match=rf"^labels: .*{re.escape(str(shape))}$"):
        _prior(kind).log_prob_of(_latents(5, 4), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("labels", "named"), [([0, -1, 2], "-1"), ([0, 3, 2], "3"), ([True, False, True], "bool"), ([0.0, 1, 2], "float32")]
)
def test_labels_of_no_class_or_that_are_no_integers_are_refused(kind, labels, named):
    prior = _prior(kind)
    for use in (prior.sample, lambda labels: prior.log_prob_of(_latents(3, 4), labels)):
        with pytest.raises(ValueError, match=f"^labels:.*{named}$"):
            use(torch.tensor(labels))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_integer_labels_of_any_dtype_are_indices(kind, dtype):
    """Indexing takes uint8 for a mask."""
    prior, labels, z = _prior(kind), torch.tensor([1, 0, 2]), _latents(3, 4)
    assert torch.equal(prior.log_prob_of(z, labels.to(dtype)), prior.log_prob_of(z, labels))
    samples = (
        prior.sample(chosen, generator=torch.Generator().manual_seed(0)) for chosen in (labels.to(dtype), labels)
    )
    assert torch.equal(*samples)


def test_labels_of_samples_are_a_vector():
    for shape in ((2, 1), ()):
        with pytest.raises(ValueError, match=rf"^labels: .*{re.escape(str(shape))}$"):
            _prior("diagonal").sample(torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf, "1", None, torch.ones(4)])
def test_temperatures_that_are_none_are_refused(temperature):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"^temperature"):
        _prior("diagonal").sample(torch.tensor([0, 1]), temperature)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_no_latents_and_no_labels_are_a_batch_too(kind):
    prior, labels = _prior(kind), torch.zeros(0, dtype=torch.long)
    assert prior.log_prob(torch.zeros(0, 4)).shape == (0, 3)
    assert prior.log_prob_of(torch.zeros(0, 1, 2, 2), labels).shape == (0,)
    assert prior.sample(labels).shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("classes", "dimensions"), [(1, 1), (1, 4), (3, 1)])
def test_one_class_and_one_dimension(kind, classes, dimensions):
    prior = _prior(kind, classes, dimensions)
    z, labels = _latents(5, dimensions), torch.arange(5) % classes
    expected = torch.stack([distribution.log_prob(z) for distribution in _distributions(prior)], 1)
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-11, atol=1e-11)
    own = expected.gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(prior.log_prob_of(z, labels), own, rtol=1e-11, atol=1e-11)
    assert prior.sample(labels).shape == (5, dimensions)


@pytest.mark.parametrize("kind", KINDS)
def test_checks_break_no_graph(kind):
    """`fullgraph` raises where a graph breaks."""
    prior, z, labels = _prior(kind), _latents(5, 1, 2, 2), torch.tensor([2, 0, 0, 1, 2])
    prior.precompute()
    prior.sample(labels)  # fills the caches
    for compute in (prior.log_prob_of, lambda z, labels: prior.log_prob(z)):
        compiled = torch.compile(compute, backend="eager", fullgraph=True, dynamic=False)
        torch.testing.assert_close(compiled(z, labels), compute(z, labels))
    compiled = torch.compile(prior.sample, backend="eager", fullgraph=True, dynamic=False)
    assert compiled(labels, 0.5).shape == (5, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_likelihoods_read_no_values_on_an_accelerator(kind):
    """Tensors of the meta device have no values: reading one is an error."""
    prior = _prior(kind).to("meta")
    z, labels = torch.zeros(5, 4, device="meta"), torch.zeros(5, dtype=torch.long, device="meta")
    prior.precompute()
    assert prior.log_prob(z).shape == (5, 3)
    assert prior.log_prob_of(z, labels).shape == (5,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_gaussians_of_any_precision_are_scored_in_float64(kind, dtype):
    """The normaliser of 3072 dimensions is in the thousands, where half precision resolves 2 to 16 nats."""
    prior, z = _prior(kind, dimensions=3072 if kind == "diagonal" else 4).to(dtype=dtype), _latents(5, 1)
    z = z.expand(-1, prior.num_dimensions)
    expected = prior.to(dtype=torch.float64).log_prob(z)
    torch.testing.assert_close(prior.log_prob(z), expected, rtol=1e-12, atol=0)
    second = {"diagonal": {"variance": prior.variance}, "full": {"covariance": prior.covariance}}[kind]
    mixed = GaussianPrior(prior.mean.double(), **second)
    exact = GaussianPrior(prior.mean.double(), **{name: tensor.double() for name, tensor in second.items()})
    torch.testing.assert_close(mixed.log_prob(z), exact.log_prob(z), rtol=1e-12, atol=0)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_covariance_that_float32_cannot_factorise_still_gives_samples_and_densities(device):
    """Its condition number is 1e10; in float32 its Cholesky factorisation fails."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64, generator=generator)).Q
    covariance = (axes * torch.logspace(0, -10, 16, dtype=torch.float64)) @ axes.T
    exact = GaussianPrior(torch.zeros(1, 16, dtype=torch.float64), covariance=((covariance + covariance.T) / 2)[None])
    exact.check()
    rounded = exact.to(dtype=torch.float32).to(device)
    labels = torch.zeros(4000, dtype=torch.long)
    z = rounded.sample(labels, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(z.T @ z / len(z), exact.covariance[0], rtol=0, atol=0.05)
    point, expected = torch.zeros(1, 16), exact.log_prob(torch.zeros(1, 16))
    for found in (rounded.log_prob_of(point, labels[:1])[None].double(), rounded.log_prob(point)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(rounded.to(dtype=torch.float64).log_prob(point), expected, rtol=1e-5, atol=0)


def test_likelihoods_in_a_lower_precision_follow_the_means():
    prior, z = _prior("diagonal").to(dtype=torch.float32), _latents(5, 4)
    with torch.no_grad():
        prior.log_prob(z)
    prior.mean.requires_grad_()
    before = prior.log_prob(z)
    assert before.requires_grad
    with torch.no_grad():
        prior.mean += 5
    assert (prior.log_prob(z) != before).all()
