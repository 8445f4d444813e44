"""The objectives against Eq. 4 written down sample by sample and pair by pair, and what a step does."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nfpi.priors import (
    ClassStatistics,
    FixedPointConfig,
    GaussianLearner,
    GaussianPrior,
    GradientDescentConfig,
    ValueRange,
    fit_fixed_point,
)
from nfpi.priors.gradient_descent import mean_class_nll, released_objective, repulsion

COUNTS = (5, 9, 3, 12)
SCALES = ["pairwise", "average"]


def _latents(seed=0, dimensions=3):
    """Classes of different sizes, (z, y)."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS))
    centres = 2 * torch.randn(len(COUNTS), dimensions, generator=generator, dtype=torch.float64)
    return centres[y] + 0.7 * torch.randn(len(y), dimensions, generator=generator, dtype=torch.float64), y


def _statistics(seed=0, dimensions=3):
    return ClassStatistics.from_latents(*_latents(seed, dimensions))


def _prior(seed=1, classes=4, dimensions=3):
    """Variances within (0.25, 1.25)."""
    generator = torch.Generator().manual_seed(seed)
    mean = 2 * torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    return GaussianPrior(mean, 0.3 + 0.9 * torch.rand(classes, dimensions, generator=generator, dtype=torch.float64))


def _distributions(prior):
    return [Independent(Normal(m, v.sqrt()), 1) for m, v in zip(prior.mean, prior.variance, strict=True)]


def _equation_4(prior, z, y, weight, alpha, scale):
    """Sample by sample and pair by pair; no gradient through π."""
    gaussians, classes = _distributions(prior), prior.num_classes
    nll = sum(-gaussian.log_prob(z[y == i]).mean() for i, gaussian in enumerate(gaussians))
    pairs = [(i, j) for i in range(classes) for j in range(classes) if i != j]
    kld = {(i, j): kl_divergence(gaussians[i], gaussians[j]) for i, j in pairs}
    average = torch.stack([*kld.values()]).mean().detach()
    repulsion = 0.0
    for pair in pairs:
        pi = kld[pair].detach() if scale == "pairwise" else average
        repulsion = repulsion + torch.exp(-kld[pair] / (pi * alpha))
    return nll + weight / (classes * (classes - 1)) * repulsion


def _gradients(value, learner):
    return torch.autograd.grad(value, [learner.mean, learner.spread])


# ---- the Gaussians ------------------------------------------------------------------------------------------


def test_gaussians_start_where_they_are_told_to():
    start = _prior()
    found = GaussianLearner(start, GradientDescentConfig(weight=1.0, variance_slope=3.0)).prior
    torch.testing.assert_close(found.mean, start.mean)
    torch.testing.assert_close(found.variance, start.variance)
    assert found.mean.dtype == found.variance.dtype == torch.float64


def test_variances_out_of_range_start_just_inside():
    start = GaussianPrior(torch.zeros(2, 2), torch.tensor([[0.1, 0.25], [1.25, 40.0]]))
    variance = GaussianLearner(start, GradientDescentConfig(weight=1.0)).prior.variance
    expected = torch.tensor([[0.26, 0.26], [1.24, 1.24]], dtype=torch.float64)
    torch.testing.assert_close(variance, expected)


def test_variances_that_are_not_learned_are_kept_wherever_they_lie():
    start = GaussianPrior(torch.eye(2), torch.tensor([[0.1, 0.25], [1.25, 40.0]]))
    learner = GaussianLearner(start, GradientDescentConfig(weight=1.0, fit_variance=False))
    learner.update(ClassStatistics(torch.tensor([5, 5]), torch.zeros(2, 2), torch.ones(2, 2)), 0.0)
    assert torch.equal(learner.prior.variance, start.variance.double())
    assert not torch.equal(learner.prior.mean, start.mean.double())


@pytest.mark.parametrize("step", [-1e4, 1e4])
def test_no_step_leads_out_of_the_range(step):
    config = GradientDescentConfig(weight=1.0, variance_range=2.0, variance_slope=0.5, smallest_variance=0.1)
    learner = GaussianLearner(_prior(), config)
    with torch.no_grad():
        learner.spread += step
    variance = learner.prior.variance
    assert variance.min() >= 0.1
    assert variance.max() <= 2.1


def test_learning_leaves_the_initial_gaussians_alone():
    start = _prior()
    mean, variance = start.mean.clone(), start.variance.clone()
    learner = GaussianLearner(start, GradientDescentConfig(weight=1.0))
    before = learner.prior
    learner.update(_statistics(), 0.0)
    assert torch.equal(start.mean, mean)
    assert torch.equal(start.variance, variance)
    assert torch.equal(before.mean, mean)  # a copy, not a view of what is learned
    assert not before.mean.requires_grad


# ---- Eq. 4 --------------------------------------------------------------------------------------------------


def test_statistics_are_enough_for_the_likelihood():
    z, y = _latents()
    expected = torch.stack([-g.log_prob(z[y == i]).mean() for i, g in enumerate(_distributions(_prior()))])
    torch.testing.assert_close(mean_class_nll(_prior(), _statistics()), expected)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weight", [0.0, 40.0])
def test_the_objective_and_its_gradient_are_those_of_equation_4(scale, weight):
    learner = GaussianLearner(_prior(), GradientDescentConfig(weight=weight, alpha=2.0, scale=scale))
    found = learner.objective(_statistics())
    expected = _equation_4(learner(), *_latents(), weight, 2.0, scale)
    torch.testing.assert_close(found, expected)
    for one, other in zip(_gradients(found, learner), _gradients(expected, learner), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("weight", [0.5, 5.0])
def test_a_fixed_point_of_the_exact_update_has_no_gradient(scale, weight):
    """The fixed point takes variances with divisor N − 1 for those of Eq. 4; the means do not see them."""
    statistics = _statistics()
    fit = FixedPointConfig(weight=weight, scale=scale, update="exact", tolerance=1e-12, max_iterations=20_000)
    result = fit_fixed_point(statistics, fit)
    assert result.converged
    wide = GradientDescentConfig(weight=weight, scale=scale, smallest_variance=1e-3, variance_range=50.0)
    learner = GaussianLearner(result.prior, wide)
    learner.spread.data = torch.logit((result.prior.variance - 1e-3) / 50)  # however near to an end
    assert _gradients(learner.objective(statistics), learner)[0].abs().max() < 1e-8
    count = statistics.count[:, None]
    biased = ClassStatistics(statistics.count, statistics.mean, statistics.variance * count / (count - 1))
    assert _gradients(learner.objective(biased), learner)[1].abs().max() < 1e-8
    with torch.no_grad():
        learner.mean += 0.1
    assert _gradients(learner.objective(statistics), learner)[0].abs().max() > 1e-3


def test_descent_finds_the_moments_where_nothing_repels():
    """At λ = 0 the best Gaussians are the class means and the variances with divisor N."""
    statistics = _statistics()
    config = GradientDescentConfig(weight=0.0, smallest_variance=1e-3, variance_range=3.0, final_learning_rate=1e-4)
    learner = GaussianLearner(_prior(), config)
    for step in range(1500):
        learner.update(statistics, step / 1500)
    count = statistics.count[:, None]
    torch.testing.assert_close(learner.prior.mean, statistics.mean, rtol=0, atol=1e-3)
    torch.testing.assert_close(learner.prior.variance, statistics.variance * (count - 1) / count, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("classes", [4, 32])
@pytest.mark.parametrize("objective", ["equation_4", "released"])
def test_no_array_is_larger_than_the_gaussians_and_the_pairs(classes, objective):
    """Not K×K×D: the memory of a step is K·D and K²."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            sizes = [tensor.numel() for tensor in tree_iter(result) if isinstance(tensor, torch.Tensor)]
            largest = max([largest, *sizes])
            return result

    dimensions = 24
    learner = GaussianLearner(
        _prior(classes=classes, dimensions=dimensions), GradientDescentConfig(weight=3.0, objective=objective)
    )
    count = torch.full((classes,), 7)
    statistics = ClassStatistics(count, torch.randn(classes, dimensions), torch.rand(classes, dimensions) + 0.5)
    with Watch():
        learner.update(statistics, 0.0, ValueRange().update(torch.tensor([1.0, 2.0])))
    assert largest <= max(classes * dimensions, classes**2)


# ---- steps --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("power", "sizes"),
    [(1.0, [0.1, 0.0775, 0.055]), (2.0, [0.1, 0.094375, 0.0775]), (0.5, [0.1, 0.055, 0.1 - 0.0636396])],
)
def test_step_sizes_follow_their_power(power, sizes):
    config = GradientDescentConfig(weight=0.0, learning_rate=0.1, final_learning_rate=0.01, power=power)
    assert [config.step_size(u) for u in (0.0, 0.25, 0.5)] == pytest.approx(sizes)
    assert config.step_size(1.0) == pytest.approx(0.01)


def test_a_step_is_one_of_adam_with_the_size_of_its_time():
    """Adam's first step is η·sign(gradient), its second one moves by its moments."""
    start, statistics = _prior(), _statistics()
    config = GradientDescentConfig(weight=30.0, learning_rate=0.2, final_learning_rate=0.1)
    learner = GaussianLearner(start, config)
    moments = [torch.zeros_like(p) for p in (learner.mean, learner.mean, learner.spread, learner.spread)]
    for step, progress in enumerate((0.0, 0.5), 1):
        value = learner.objective(statistics)
        gradients = _gradients(value, learner)
        size = config.step_size(progress)
        expected = []
        for index, (parameter, gradient) in enumerate(zip((learner.mean, learner.spread), gradients, strict=True)):
            moments[2 * index] = 0.9 * moments[2 * index] + 0.1 * gradient
            moments[2 * index + 1] = 0.999 * moments[2 * index + 1] + 0.001 * gradient.square()
            first, second = moments[2 * index] / (1 - 0.9**step), moments[2 * index + 1] / (1 - 0.999**step)
            expected.append(parameter.detach() - size * first / (second.sqrt() + 1e-8))
        learner.update(statistics, progress)
        torch.testing.assert_close(learner.mean.detach(), expected[0])
        torch.testing.assert_close(learner.spread.detach(), expected[1])
        assert learner.loss == pytest.approx(value.item())
        assert learner.steps == step


@pytest.mark.parametrize("learned", ["mean", "variance"])
def test_only_what_is_fitted_moves(learned):
    start = _prior()
    config = GradientDescentConfig(weight=1.0, fit_mean=learned == "mean", fit_variance=learned == "variance")
    learner = GaussianLearner(start, config)
    learner.update(_statistics(), 0.0)
    for name in ("mean", "variance"):
        moved = (getattr(learner.prior, name) - getattr(start, name)).abs().max()
        assert (moved > 1e-3) if name == learned else (moved < 1e-12)


# ---- the released objective ---------------------------------------------------------------------------------


def test_the_released_objective_pair_by_pair():
    z, y = _latents()
    prior, log_abs_det = _prior(), torch.linspace(-9, -2, len(z), dtype=torch.float64)
    prior.mean.requires_grad_()
    prior.variance.requires_grad_()
    gaussians = _distributions(prior)
    nll = torch.stack([-gaussians[label].log_prob(latent) for latent, label in zip(z, y, strict=True)])
    likelihoods = (nll - log_abs_det).detach()
    width = 1.2 * likelihoods.max() - 0.8 * likelihoods.min()  # both are positive here
    assert likelihoods.min() > 0
    kld = torch.stack([torch.stack([kl_divergence(p, q) for q in gaussians]) for p in gaussians])
    each = ((kld + kld.T).sum(1) / (len(kld) - 1)).detach()
    expected = nll.mean() / width - 37.0 * kld.sum() / (12 * (1.2 * each.max() - 0.8 * each.min()))
    nll_range = ValueRange()
    for batch in likelihoods.split(7):
        nll_range.update(batch)
    found = released_objective(prior, _statistics(), nll_range, 37.0)
    torch.testing.assert_close(found, expected)
    inputs = [prior.mean, prior.variance]
    for one, other in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_the_released_weight_falls_over_a_hundred_epochs():
    statistics, nll_range = _statistics(), ValueRange().update(torch.tensor([3.0, 8.0]))
    learner = GaussianLearner(_prior(), GradientDescentConfig(weight=0.0, objective="released"))
    for steps, weight in ((0, 50.0), (33, 50 - 25 / 3), (99, 25.0), (400, 25.0)):
        learner.steps = steps
        expected = released_objective(_prior(), statistics, nll_range, weight)
        torch.testing.assert_close(learner.objective(statistics, nll_range), expected)


@pytest.mark.parametrize(
    ("batches", "width"),
    [
        ([[1.0, 3.0], [2.0]], 1.2 * 3 - 0.8 * 1),
        ([[-5.0], [-1.0, -2.0]], -0.8 * 1 + 1.2 * 5),
        ([[-1.0, 4.0], [0.0]], 1.2 * 5),
        ([[2.0], [2.0]], 0.4 * 2),
        ([[0.0, 0.0]], 1.0),  # nothing to be divided by
    ],
)
def test_the_width_of_a_range(batches, width):
    values = ValueRange()
    for batch in batches:
        values.update(torch.tensor(batch))
    assert values.width == pytest.approx(width)


def test_gaussians_that_coincide_have_no_released_repulsion():
    """As the released run starts: all at 0; the likelihood alone moves them apart."""
    statistics = _statistics()
    start = GaussianPrior(torch.zeros(4, 3), torch.full((4, 3), 0.75))
    learner = GaussianLearner(start, GradientDescentConfig(weight=0.0, objective="released"))
    learner.update(statistics, 0.0, ValueRange().update(torch.tensor([3.0, 8.0])))
    assert torch.isfinite(learner.prior.mean).all()
    assert torch.equal(learner.prior.mean.sign(), statistics.mean.sign())


def test_the_released_objective_needs_the_likelihoods():
    learner = GaussianLearner(_prior(), GradientDescentConfig(weight=0.0, objective="released"))
    with pytest.raises(ValueError, match="none"):
        learner.update(_statistics(), 0.0)
    with pytest.raises(ValueError, match="none"):
        learner.update(_statistics(), 0.0, ValueRange())


# ---- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": -1.0}, "weight"),
        ({"variance_range": math.inf}, "variance_range"),
        ({"objective": "released", "every": "step"}, "step"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GradientDescentConfig(**({"weight": 1.0} | changes))


def test_gaussians_that_cannot_be_learned_are_refused():
    full = GaussianPrior(torch.zeros(2, 2), covariance=torch.eye(2).expand(2, 2, 2))
    with pytest.raises(ValueError, match="full ones"):
        GaussianLearner(full, GradientDescentConfig(weight=1.0))
    one = GaussianPrior(torch.zeros(1, 2), torch.ones(1, 2))
    statistics = ClassStatistics(torch.tensor([5]), torch.ones(1, 2), torch.ones(1, 2))
    with pytest.raises(ValueError, match="classes"):
        GaussianLearner(one, GradientDescentConfig(weight=1.0)).update(statistics, 0.0)
    learner = GaussianLearner(one, GradientDescentConfig(weight=0.0))
    learner.update(statistics, 0.0)
    assert torch.isfinite(learner.prior.mean).all()


@pytest.mark.parametrize("objective", ["equation_4", "released"])
def test_statistics_of_other_shapes_are_not_broadcast(objective):
    learner = GaussianLearner(_prior(), GradientDescentConfig(weight=1.0, objective=objective))
    nll_range = ValueRange().update(torch.tensor([1.0, 2.0]))
    for shape in ((1, 3), (4, 1)):
        statistics = ClassStatistics(torch.full(shape[:1], 5), torch.zeros(shape), torch.ones(shape))
        with pytest.raises(ValueError, match=rf"^statistics:.*\({shape[0]}, {shape[1]}\)$"):
            learner.update(statistics, 0.0, nll_range)
    assert learner.steps == 0


@pytest.mark.parametrize("objective", ["equation_4", "released"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_class_without_a_variance_is_refused(objective, count):
    """One step on it would leave NaN in the means."""
    z, y = _latents()
    keep = (y != 2) | (torch.cumsum(y == 2, 0) <= count)
    statistics = ClassStatistics.from_latents(z[keep], y[keep], num_classes=4)
    learner = GaussianLearner(_prior(), GradientDescentConfig(weight=1.0, objective=objective))
    with pytest.raises(ValueError, match=rf"class 2.*{count}"):
        learner.update(statistics, 0.0, ValueRange().update(torch.tensor([1.0, 2.0])))
    assert learner.steps == 0


def test_statistics_do_not_give_the_likelihood_of_full_covariances():
    prior = GaussianPrior(torch.zeros(4, 3), covariance=torch.eye(3).expand(4, 3, 3))
    with pytest.raises(ValueError, match="full ones"):
        mean_class_nll(prior, _statistics())


def test_a_single_class_has_no_repulsion():
    prior = _prior(classes=1)
    statistics = ClassStatistics(torch.tensor([5]), torch.ones(1, 3), torch.ones(1, 3))
    nll_range = ValueRange().update(torch.tensor([1.0, 2.0]))
    for compute in (lambda: repulsion(prior, 1.0), lambda: released_objective(prior, statistics, nll_range, 50.0)):
        with pytest.raises(ValueError, match=r"2 classes.*1"):
            compute()


def test_a_range_is_not_one_of_no_values():
    with pytest.raises(ValueError, match=r"^range:.*none$"):
        ValueRange().update(torch.zeros(0))
