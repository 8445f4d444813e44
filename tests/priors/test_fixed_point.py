"""The fixed point against Eq. 4 itself, against the equations written down pair by pair, and where it has none."""

import itertools
import math
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from nfpi.config.priors import FixedPointSettings
from nfpi.linalg import geometric_mean
from nfpi.priors import ClassStatistics, FixedPointConfig, FixedPointDiverged, GaussianPrior, fit_fixed_point
from nfpi.priors.fixed_point import fit_prior
from nfpi.runtime.divergence import Diverged

KINDS = ["diagonal", "full"]
SCALES = ["pairwise", "average"]
EXACT = FixedPointConfig(weight=5.0, update="exact", tolerance=1e-12, max_iterations=20_000)
RELEASED = FixedPointConfig(weight=30.0, tolerance=1e-10, max_iterations=20_000)


def replace(config, **changes):
    return config.model_copy(update=changes)


def _statistics(kind="diagonal", classes=4, dimensions=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    count = torch.full((classes,), 50)
    mean = 2 * torch.randn(classes, dimensions, generator=generator, dtype=torch.float64)
    if kind == "diagonal":
        variance = torch.rand(classes, dimensions, generator=generator, dtype=torch.float64) + 0.5
        return ClassStatistics(count, mean, variance)
    factor = torch.randn(classes, dimensions, 4 * dimensions, generator=generator, dtype=torch.float64)
    return ClassStatistics(count, mean, covariance=factor @ factor.mT / (4 * dimensions))


def _spread(prior):
    return prior.covariance if prior.is_full else prior.variance


def _prior_of(statistics):
    return GaussianPrior(
        statistics.mean, None if statistics.covariance is not None else statistics.variance, statistics.covariance
    )


# ---- the equations, written down pair by pair ------------------------------------------------------------------------


def _plain_divergence(mean, covariance, i, j):
    precision, gap = torch.linalg.inv(covariance[j]), mean[i] - mean[j]
    log_ratio = torch.logdet(covariance[j]) - torch.logdet(covariance[i])
    return 0.5 * (log_ratio - len(gap) + (precision @ covariance[i]).trace() + gap @ precision @ gap)


def _plain_kernel(mean, covariance, config):
    classes = len(mean)
    pairs = list(itertools.permutations(range(classes), 2))
    kld = {pair: _plain_divergence(mean, covariance, *pair) for pair in pairs}
    average = sum(kld.values()) / len(pairs)
    kappa = torch.zeros(classes, classes, dtype=torch.float64)
    for pair in pairs:
        denominator = config.alpha * (kld[pair] if config.scale == "pairwise" else average)
        kappa[pair] = torch.exp(-kld[pair] / denominator) / denominator
    return kappa


def _plain_a(mean, covariance, kappa, c, i):
    """A_i of Eq. 7."""
    others = [j for j in range(len(mean)) if j != i]
    precision = torch.linalg.inv(covariance[i])
    inner = sum(kappa[j, i] * (torch.outer(mean[i] - mean[j], mean[i] - mean[j]) + covariance[j]) for j in others)
    balance = 1 + c * sum(kappa[i, j] - kappa[j, i] for j in others)
    return precision * balance + c * precision @ inner @ precision


def _plain_step(statistics, mean, covariance, config):
    """Eqs. 5-7 as they stand (fidelity: B's K_yy is K_yy'), and what the released code makes of them. (K, D, D)."""
    classes = len(mean)
    c = config.weight / (classes * (classes - 1))
    released = config.update == "released"
    kappa = _plain_kernel(mean, covariance, config)
    precision = [torch.linalg.inv(sigma) for sigma in covariance]
    new_mean, new_covariance = mean.clone(), covariance.clone()
    gap = mean[:, None] - mean[None]
    for i in range(classes):
        others = [j for j in range(classes) if j != i]
        if config.fit_mean:
            sigma, inverses = covariance[i], precision
            if released and config.isotropic_mean_update:
                sigma = sigma.diagonal().mean() * torch.eye(len(sigma), dtype=torch.float64)
                inverses = [p.diagonal().mean() * torch.eye(len(p), dtype=torch.float64) for p in precision]
            push = sum(sigma @ (kappa[i, j] * inverses[j] + kappa[j, i] * inverses[i]) @ gap[i, j] for j in others)
            new_mean[i] = statistics.mean[i] + c * push
        if config.fit_variance:
            data = torch.diag(statistics.variance[i]) if statistics.covariance is None else statistics.covariance[i]
            b = data + c * covariance[i] @ sum(kappa[i, j] * precision[j] for j in others) @ covariance[i]
            if released:
                squares = gap.square().sum(0) if config.pooled_mean_gaps else gap[i].square()
                a = covariance[i] * (1 + c * sum(kappa[i, j] - kappa[j, i] for j in others))
                a = a + c * sum(kappa[j, i] * (torch.diag(squares[j]) + covariance[j]) for j in others)
            else:
                off = statistics.mean[i] - mean[i]
                own = torch.outer(off, off)
                b = b + (own if statistics.covariance is not None else torch.diag(own.diagonal()))
                a = _plain_a(mean, covariance, kappa, c, i)
            if statistics.covariance is None:
                new_covariance[i] = torch.diag((b.diagonal() / a.diagonal()).sqrt())
            else:
                new_covariance[i] = geometric_mean(torch.linalg.inv(a), b)
    return new_mean, new_covariance


def _plain_fit(statistics, config, initial=None):
    """Until nothing moves by more than the tolerance: mean, covariance, iterations."""
    initial = initial or _prior_of(statistics)
    mean = initial.mean
    covariance = initial.covariance if initial.is_full else initial.variance.diag_embed()
    iterations, change = 0, math.inf
    while change > config.tolerance and iterations < config.max_iterations:
        new_mean, new_covariance = _plain_step(statistics, mean, covariance, config)
        change = max((new_mean - mean).norm(dim=1).max(), (new_covariance - covariance).flatten(1).norm(dim=1).max())
        mean, covariance, iterations = new_mean, new_covariance, iterations + 1
    return mean, covariance, iterations


VARIANTS = {
    "released": RELEASED,
    "released, average": replace(RELEASED, scale="average"),
    "released, full mean update": replace(RELEASED, isotropic_mean_update=False),
    "released, no slip": replace(RELEASED, pooled_mean_gaps=False),
    "released, neither": replace(RELEASED, isotropic_mean_update=False, pooled_mean_gaps=False),
    "released, mean only": replace(RELEASED, fit_variance=False),
    "released, variance only": replace(RELEASED, fit_mean=False),
    "exact": EXACT,
    "exact, average": replace(EXACT, scale="average"),
    "exact, mean only": replace(EXACT, fit_variance=False),
    "exact, variance only": replace(EXACT, fit_mean=False),
    "exact, another alpha": replace(EXACT, alpha=3.0),
}


@pytest.mark.parametrize(
    ("kind", "variant"),
    [(kind, name) for kind in KINDS for name in VARIANTS if kind == "diagonal" or name.startswith("exact")],
)
@pytest.mark.parametrize("start", ["statistics", "elsewhere"])
def test_one_iteration_is_the_equations_written_down_pair_by_pair(kind, variant, start):
    config = replace(VARIANTS[variant], max_iterations=1)
    statistics = _statistics(kind)
    initial = None if start == "statistics" else _prior_of(_statistics(kind, seed=1))
    found = fit_fixed_point(statistics, config, initial).prior
    mean, covariance, _ = _plain_fit(statistics, config, initial)
    torch.testing.assert_close(found.mean, mean, rtol=1e-10, atol=1e-10)
    spread = covariance if kind == "full" else covariance.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(_spread(found), spread, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name.startswith("released")])
@pytest.mark.parametrize("weight", [30.0, 300.0])
def test_released_fit_stops_where_and_when_the_plain_one_does(variant, weight):
    config = replace(VARIANTS[variant], weight=weight, tolerance=0.1, max_iterations=100)
    statistics = _statistics(classes=3, dimensions=5, seed=3)
    initial = GaussianPrior(statistics.mean, torch.ones(3, 5)) if variant.endswith("mean only") else None
    initial = initial and initial.to(dtype=torch.float64)
    result = fit_fixed_point(statistics, config, initial)
    mean, covariance, iterations = _plain_fit(statistics, config, initial)
    assert result.iterations == iterations > 1
    torch.testing.assert_close(result.prior.mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(result.prior.variance, covariance.diagonal(dim1=1, dim2=2), rtol=1e-9, atol=1e-9)


# ---- the references --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def references():
    shared = os.environ.get("NFPI_SHARED", Path(__file__).parents[2].parent / "shared")
    path = Path(shared) / "data" / "fixed_point.npz"
    if not path.exists():
        pytest.skip("no reference fixed points")
    with np.load(path) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file}


@pytest.mark.parametrize("weight", ["30", "300"])
@pytest.mark.parametrize("variant", ["both", "both_full_mean", "both_no_slip", "mean_only"])
def test_released_references(references, variant, weight):
    statistics = ClassStatistics(torch.full((4,), 100), references["class_mean"], references["class_variance"])
    config = FixedPointConfig(
        weight=float(weight),
        fit_variance=variant != "mean_only",
        isotropic_mean_update=variant != "both_full_mean",
        pooled_mean_gaps=variant != "both_no_slip",
    )
    initial = GaussianPrior(statistics.mean, torch.ones_like(statistics.mean)) if variant == "mean_only" else None
    result = fit_fixed_point(statistics, config, initial)
    name = f"released/{variant}/{weight}"
    assert result.iterations == int(references[f"{name}/iterations"])
    torch.testing.assert_close(result.prior.mean, references[f"{name}/mean"], rtol=1e-8, atol=1e-8)
    variance = references.get(f"{name}/variance", torch.ones_like(statistics.mean))
    torch.testing.assert_close(result.prior.variance, variance, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["pairwise/5", "pairwise/20", "average/5"])
def test_exact_references(references, name):
    statistics = ClassStatistics(torch.full((4,), 100), references["class_mean"], references["class_variance"])
    scale, weight = name.split("/")
    result = fit_fixed_point(statistics, replace(EXACT, weight=float(weight), scale=scale))
    torch.testing.assert_close(result.prior.mean, references[f"exact/{name}/mean"], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result.prior.variance, references[f"exact/{name}/variance"], rtol=1e-8, atol=1e-8)


# ---- Eq. 4 -----------------------------------------------------------------------------------------------------------


def _objective(statistics, mean, spread, config):
    """Eq. 4: the sum over classes of the mean NLL of a class, and c times Eq. 3 with π a constant."""
    full = statistics.covariance is not None
    if full:
        gaussians = [MultivariateNormal(m, (s + s.T) / 2) for m, s in zip(mean, spread, strict=True)]
    else:
        gaussians = [Independent(Normal(m, v.sqrt()), 1) for m, v in zip(mean, spread, strict=True)]
    loss = 0
    for i, gaussian in enumerate(gaussians):
        # the mean of −log N(z_n; μ, Σ) over latents of mean m and covariance S: that of m itself, and ½ tr Σ⁻¹S
        loss = loss - gaussian.log_prob(statistics.mean[i])
        if full:
            loss = loss + 0.5 * (gaussian.precision_matrix @ statistics.covariance[i]).trace()
        else:
            loss = loss + 0.5 * (statistics.variance[i] / spread[i]).sum()
    kld = torch.stack([kl_divergence(p, q) for p, q in itertools.permutations(gaussians, 2)])
    pi = kld.detach() if config.scale == "pairwise" else kld.detach().mean()
    return loss + config.weight / len(kld) * torch.exp(-kld / (pi * config.alpha)).sum()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("fitted", ["both", "mean", "variance"])
def test_gradient_of_the_objective_is_zero_at_the_exact_fixed_point(kind, scale, fitted):
    statistics = _statistics(kind)
    config = replace(EXACT, scale=scale, fit_mean=fitted != "variance", fit_variance=fitted != "mean")
    initial = _prior_of(_statistics(kind, seed=1)) if fitted != "both" else None
    result = fit_fixed_point(statistics, config, initial)
    assert result.converged

    def gradients(prior, config):
        inputs = [prior.mean.clone().requires_grad_(), _spread(prior).clone().requires_grad_()]
        found = torch.autograd.grad(_objective(statistics, *inputs, config), inputs)
        return [
            gradient for gradient, name in zip(found, ("mean", "variance"), strict=True) if fitted in ("both", name)
        ]

    for gradient in gradients(result.prior, config):
        assert gradient.abs().max() < 1e-9
    # the same test elsewhere: at the moments of the classes, and with another λ
    start = _prior_of(statistics) if fitted == "both" else initial
    assert max(gradient.abs().max() for gradient in gradients(start, config)) > 1e-2
    other = replace(config, weight=6.0)
    assert max(gradient.abs().max() for gradient in gradients(result.prior, other)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("fitted", ["both", "mean", "variance"])
def test_gradient_along_isotropic_covariances_is_zero_at_their_exact_fixed_point(kind, scale, fitted):
    """Eq. 4 of Σ_i = v_i I as a function of the means and the v_i; the latents themselves are not isotropic."""
    statistics = _statistics(kind)
    config = replace(
        EXACT, scale=scale, isotropic_variance=True, fit_mean=fitted != "variance", fit_variance=fitted != "mean"
    )
    initial = _prior_of(_statistics(kind, seed=1)) if fitted != "both" else None
    result = fit_fixed_point(statistics, config, initial)
    assert result.converged
    assert not result.prior.is_full
    assert torch.equal(result.prior.variance, result.prior.variance[:, :1].expand(4, 3))

    def gradients(prior, config):
        mean, variance = prior.mean.clone().requires_grad_(), prior.variance[:, 0].clone().requires_grad_()
        spread = variance[:, None].expand(4, 3)
        spread = spread.diag_embed() if kind == "full" else spread
        found = torch.autograd.grad(_objective(statistics, mean, spread, config), (mean, variance))
        return [
            gradient for gradient, name in zip(found, ("mean", "variance"), strict=True) if fitted in ("both", name)
        ]

    assert max(gradient.abs().max() for gradient in gradients(result.prior, config)) < 1e-9
    start = (_prior_of(statistics) if fitted == "both" else initial).to_isotropic()
    assert max(gradient.abs().max() for gradient in gradients(start, config)) > 1e-2
    assert max(gradient.abs().max() for gradient in gradients(result.prior, replace(config, weight=6.0))) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("isotropic", [False, True])
def test_with_divisor_n_the_gradient_of_the_sum_over_latents_is_zero(kind, isotropic):
    """Eq. 4 literally: Σ_i (1/N_i) Σ_n −log N(z_n; μ_i, Σ_i) + c L_KLD over few latents, classes of different sizes."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([6, 9, 14]))
    centres = 2 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    latents = centres[labels] + torch.randn(len(labels), 2, generator=generator, dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.4], [0.0, 0.7]], dtype=torch.float64
    )
    statistics = ClassStatistics.from_latents(latents, labels, covariance=kind == "full")

    def largest_gradient(unbiased):
        config = replace(EXACT, weight=3.0, isotropic_variance=isotropic, unbiased_variance=unbiased)
        result = fit_fixed_point(statistics, config)
        assert result.converged
        mean = result.prior.mean.clone().requires_grad_()
        spread = (result.prior.variance[:, 0] if isotropic else _spread(result.prior)).clone().requires_grad_()
        covariance = spread[:, None].expand(3, 2) if isotropic else spread
        covariance = covariance if result.prior.is_full else covariance.diag_embed()
        gaussians = [MultivariateNormal(m, (s + s.mT) / 2) for m, s in zip(mean, covariance, strict=True)]
        loss = sum(-gaussian.log_prob(latents[labels == i]).mean() for i, gaussian in enumerate(gaussians))
        kld = torch.stack([kl_divergence(p, q) for p, q in itertools.permutations(gaussians, 2)])
        loss = loss + config.weight / 6 * torch.exp(-kld / (kld.detach() * config.alpha)).sum()
        return max(gradient.abs().max() for gradient in torch.autograd.grad(loss, (mean, spread)))

    assert largest_gradient(unbiased=False) < 1e-9
    assert largest_gradient(unbiased=True) > 1e-2


@pytest.mark.parametrize("scale", SCALES)
def test_objective_falls_to_its_fixed_point(scale):
    """With average π the gradient is that of Eq. 4 with π held at its last value: hold it, and go anywhere near."""
    statistics, config = _statistics(), replace(EXACT, scale=scale)
    prior = fit_fixed_point(statistics, config).prior
    kld = torch.stack([_plain_divergence(prior.mean, prior.variance.diag_embed(), i, j) for i, j in _pairs(4)])
    pi = kld if scale == "pairwise" else kld.mean()

    def held(mean, variance):
        nll = 0.5 * (variance.log() + (statistics.variance + (statistics.mean - mean).square()) / variance).sum()
        kld = torch.stack([_plain_divergence(mean, variance.diag_embed(), i, j) for i, j in _pairs(4)])
        return nll + config.weight / 12 * torch.exp(-kld / (pi * config.alpha)).sum()

    generator = torch.Generator().manual_seed(0)
    lowest = held(prior.mean, prior.variance)
    for _ in range(20):
        a, b = 0.05 * torch.randn(2, 4, 3, generator=generator, dtype=torch.float64)
        assert held(prior.mean + a, prior.variance * b.exp()) > lowest


def _pairs(classes):
    return itertools.permutations(range(classes), 2)


# ---- limits and symmetries -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("start", ["statistics", "elsewhere"])
def test_full_covariances_that_are_diagonal_stay_so_and_give_the_diagonal_answer(scale, start):
    """Along one axis only the classes differ, or (m − μ)(m − μ)ᵀ would not be diagonal."""
    diagonal = _statistics()
    diagonal.mean[:, 1:] = 0
    full = ClassStatistics(diagonal.count, diagonal.mean, covariance=diagonal.variance.diag_embed())
    config = replace(EXACT, weight=3.0, scale=scale)
    initial = None if start == "statistics" else GaussianPrior(diagonal.mean, 2 * diagonal.variance)
    expected, found = (fit_fixed_point(statistics, config, initial) for statistics in (diagonal, full))
    assert found.prior.is_full
    torch.testing.assert_close(found.prior.mean, expected.prior.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.prior.covariance, expected.prior.variance.diag_embed(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_without_repulsion_the_exact_fixed_point_is_the_moments_of_the_classes(kind, scale):
    statistics = _statistics(kind)
    start = _prior_of(_statistics(kind, seed=1))
    result = fit_fixed_point(statistics, replace(EXACT, weight=0.0, scale=scale), start)
    assert result.converged
    torch.testing.assert_close(result.prior.mean, statistics.mean, rtol=1e-10, atol=1e-10)
    expected = statistics.covariance if kind == "full" else statistics.variance
    torch.testing.assert_close(_spread(result.prior), expected, rtol=1e-9, atol=1e-9)


def test_without_repulsion_the_released_fixed_point_is_the_cube_root_of_the_variances():
    statistics = _statistics()
    result = fit_fixed_point(statistics, replace(RELEASED, weight=0.0, tolerance=1e-12))
    torch.testing.assert_close(result.prior.mean, statistics.mean)
    torch.testing.assert_close(result.prior.variance, statistics.variance ** (1 / 3))


@pytest.mark.parametrize("update", ["exact", "released"])
def test_without_repulsion_the_isotropic_fixed_point_is_that_of_the_mean_variances(update):
    statistics = _statistics()
    config = replace(EXACT, weight=0.0, update=update, isotropic_variance=True)
    result = fit_fixed_point(statistics, config)
    average = statistics.variance.mean(1, keepdim=True).expand(4, 3)
    torch.testing.assert_close(result.prior.mean, statistics.mean)
    torch.testing.assert_close(result.prior.variance, average if update == "exact" else average ** (1 / 3))


def test_in_one_dimension_isotropic_covariances_change_nothing():
    statistics = _statistics(dimensions=1)
    for config in (EXACT, RELEASED):
        usual, isotropic = (
            fit_fixed_point(statistics, replace(config, isotropic_variance=value)) for value in (False, True)
        )
        assert usual.iterations == isotropic.iterations
        torch.testing.assert_close(isotropic.prior.mean, usual.prior.mean)
        torch.testing.assert_close(isotropic.prior.variance, usual.prior.variance)


def test_released_isotropic_step_is_the_mean_over_dimensions_of_numerator_and_denominator():
    statistics = _statistics()
    config = replace(RELEASED, max_iterations=1, pooled_mean_gaps=False)
    start = _prior_of(_statistics(seed=1)).to_isotropic()
    found = fit_fixed_point(statistics, replace(config, isotropic_variance=True), start).prior.variance[:, 0]
    kappa = _plain_kernel(start.mean, start.variance.diag_embed(), config)
    c, gap, v = config.weight / 12, start.mean[:, None] - start.mean[None], start.variance[:, 0]
    for i in range(4):
        others = [j for j in range(4) if j != i]
        numerator = statistics.variance[i].mean() + c * v[i] ** 2 * sum(kappa[i, j] / v[j] for j in others)
        denominator = v[i] * (1 + c * sum(kappa[i, j] - kappa[j, i] for j in others))
        denominator += c * sum(kappa[j, i] * (gap[i, j].square().mean() + v[j]) for j in others)
        torch.testing.assert_close(found[i], (numerator / denominator).sqrt())


# a few iterations: where they do not converge they may amplify rounding
VARIED = st.sampled_from(
    [("diagonal", replace(RELEASED, tolerance=0.0, max_iterations=4))]
    + [(kind, replace(EXACT, scale=scale, tolerance=0.0, max_iterations=4)) for kind in KINDS for scale in SCALES]
)


def _outcomes(config, *several):
    """Fixed points, or when they were lost; with hypothesis either may come."""
    found = []
    for statistics in several:
        try:
            found.append(fit_fixed_point(statistics, config).prior)
        except FixedPointDiverged as fault:
            found.append(fault.iteration)
    return found


@settings(max_examples=30, deadline=None)
@given(VARIED, st.permutations(range(4)), st.integers(1, 4), st.integers(0, 2**31))
def test_names_of_the_classes_do_not_matter(varied, order, dimensions, seed):
    kind, config = varied
    statistics = _statistics(kind, dimensions=dimensions, seed=seed)
    renamed = ClassStatistics(
        statistics.count[order],
        statistics.mean[order],
        statistics.variance[order],
        statistics.covariance[order] if kind == "full" else None,
    )
    one, other = _outcomes(config, statistics, renamed)
    if isinstance(one, int) or isinstance(other, int):
        assert one == other
        return
    torch.testing.assert_close(other.mean, one.mean[order], rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(_spread(other), _spread(one)[order], rtol=1e-7, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(VARIED, st.floats(-1e3, 1e3), st.integers(1, 4), st.integers(0, 2**31))
def test_origin_does_not_matter(varied, offset, dimensions, seed):
    kind, config = varied
    statistics = _statistics(kind, dimensions=dimensions, seed=seed)
    shift = offset * torch.linspace(1, -0.5, dimensions, dtype=torch.float64)
    moved = ClassStatistics(statistics.count, statistics.mean + shift, statistics.variance, statistics.covariance)
    one, other = _outcomes(config, statistics, moved)
    if isinstance(one, int) or isinstance(other, int):
        assert one == other
        return
    torch.testing.assert_close(other.mean - shift, one.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(_spread(other), _spread(one), rtol=1e-6, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SCALES), st.integers(2, 5), st.integers(1, 5), st.floats(0, 5), st.integers(0, 2**31))
def test_full_covariances_are_symmetric_and_positive_definite(scale, classes, dimensions, weight, seed):
    statistics = _statistics("full", classes, dimensions, seed)
    config = replace(EXACT, scale=scale, weight=weight, max_iterations=40)
    try:
        covariance = fit_fixed_point(statistics, config).prior.covariance
    except FixedPointDiverged:  # which is an answer too
        return
    assert torch.equal(covariance, covariance.mT)
    assert torch.linalg.eigvalsh(covariance).min() > 0


def test_rotation_of_the_latents_rotates_the_full_fixed_point():
    statistics = _statistics("full")
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    turned = ClassStatistics(
        statistics.count, statistics.mean @ rotation.T, covariance=rotation @ statistics.covariance @ rotation.T
    )
    one, other = fit_fixed_point(statistics, EXACT), fit_fixed_point(turned, EXACT)
    torch.testing.assert_close(other.prior.mean, one.prior.mean @ rotation.T, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        other.prior.covariance, rotation @ one.prior.covariance @ rotation.T, rtol=1e-8, atol=1e-8
    )


def test_repulsion_repels():
    """A larger λ moves the classes further apart."""
    statistics = _statistics()
    gaps = []
    for weight in (0.0, 10.0, 100.0, 1000.0):
        mean = fit_fixed_point(statistics, FixedPointConfig(weight=weight, fit_variance=False)).prior.mean
        gaps.append(torch.pdist(mean).mean().item())
    assert gaps == sorted(gaps)
    assert gaps[-1] > 1.5 * gaps[0]


# ---- how the iteration ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_residuals_are_the_changes_of_each_iteration(kind):
    statistics, config = _statistics(kind), replace(EXACT, tolerance=1e-3)
    result = fit_fixed_point(statistics, config)
    assert result.converged
    assert result.residuals.shape == (result.iterations, 2)
    assert result.residuals[-1].max() <= 1e-3
    assert (result.residuals[:-1].amax(1) > 1e-3).all()
    before = _prior_of(statistics)
    for iteration, (mean_change, spread_change) in enumerate(result.residuals.tolist(), 1):
        after = fit_fixed_point(statistics, replace(config, max_iterations=iteration)).prior
        assert mean_change == pytest.approx((after.mean - before.mean).norm(dim=1).max().item())
        spread = (_spread(after) - _spread(before)).flatten(1).norm(dim=1).max().item()
        assert spread_change == pytest.approx(spread)
        before = after
    assert torch.equal(before.mean, result.prior.mean)


def test_too_few_iterations_are_reported():
    result = fit_fixed_point(_statistics(), replace(EXACT, max_iterations=3))
    assert (result.iterations, result.converged) == (3, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", ["mean", "variance"])
def test_what_is_not_fitted_keeps_its_initial_value(kind, kept):
    statistics, start = _statistics(kind), _prior_of(_statistics(kind, seed=1))
    config = replace(EXACT, fit_mean=kept != "mean", fit_variance=kept != "variance")
    for initial in (start, None):
        before = initial or _prior_of(statistics)
        after = fit_fixed_point(statistics, config, initial).prior
        mean_kept, spread_kept = torch.equal(after.mean, before.mean), torch.equal(_spread(after), _spread(before))
        assert (mean_kept, spread_kept) == (kept == "mean", kept == "variance")


def test_result_is_float64_whatever_it_starts_from():
    statistics = _statistics()
    initial = GaussianPrior(statistics.mean.float(), statistics.variance.float())
    prior = fit_fixed_point(statistics, RELEASED, initial).prior
    assert prior.mean.dtype == prior.variance.dtype == torch.float64


def test_fit_changes_neither_the_statistics_nor_the_start():
    statistics, initial = _statistics(), _prior_of(_statistics(seed=1))
    before = [t.clone() for t in (statistics.mean, statistics.variance, initial.mean, initial.variance)]
    fit_fixed_point(statistics, RELEASED, initial)
    after = (statistics.mean, statistics.variance, initial.mean, initial.variance)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


# ---- divergence ------------------------------------------------------------------------------------------------------


def _divergence(statistics, config):
    with pytest.raises(FixedPointDiverged) as caught:
        fit_fixed_point(statistics, config)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_too_large_a_weight_diverges_and_tells(kind, scale):
    config = replace(EXACT, weight=1e4, scale=scale)
    fault = _divergence(_statistics(kind), config)
    assert fault.weight == 1e4
    assert fault.iteration == len(fault.residuals) + 1
    assert 0 <= fault.class_index < 4
    assert f"{fault.quantity} of class {fault.class_index} (λ = 10000, " in str(fault)
    # the iterations before went well, and their residuals are those that are told
    if fault.residuals:
        before = fit_fixed_point(_statistics(kind), replace(config, max_iterations=len(fault.residuals)))
        assert before.residuals.tolist() == [list(pair) for pair in fault.residuals]
        before.prior.check()


def test_released_update_diverges_too():
    """Σ only, as the released runs of large λ."""
    fault = _divergence(_statistics(seed=2), replace(RELEASED, weight=1e9, fit_mean=False))
    assert (fault.weight, fault.iteration) == (1e9, len(fault.residuals) + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_divergence_names_the_class_whose_matrix_is_no_longer_definite(kind):
    statistics, config = _statistics(kind), replace(EXACT, weight=1e4)
    fault = _divergence(statistics, config)
    assert fault.quantity == "A (not positive definite)"
    before = _prior_of(statistics)
    if fault.residuals:
        before = fit_fixed_point(statistics, replace(config, max_iterations=len(fault.residuals))).prior
    covariance = before.covariance if kind == "full" else before.variance.diag_embed()
    kappa = _plain_kernel(before.mean, covariance, config)
    c = config.weight / 12
    lowest = []
    for i in range(4):
        a = _plain_a(before.mean, covariance, kappa, c, i)
        lowest.append(torch.linalg.eigvalsh(a).min() if kind == "full" else a.diagonal().min())
    assert lowest[fault.class_index] <= 0
    assert all(value > 0 for value in lowest[: fault.class_index])


@settings(max_examples=60, deadline=None)
@example(("full", EXACT), "pairwise", 2.0, 2, 3, 0)  # positive definite for Cholesky, not for the eigenvalues
@given(
    st.sampled_from([("diagonal", RELEASED), ("diagonal", EXACT), ("full", EXACT)]),
    st.sampled_from(SCALES),
    st.floats(-2, 12),
    st.integers(2, 5),
    st.integers(1, 4),
    st.integers(0, 2**31),
)
def test_every_fit_ends_at_gaussians_or_says_that_it_diverged(varied, scale, magnitude, classes, dimensions, seed):
    kind, config = varied
    config = replace(config, weight=10**magnitude, scale=scale, tolerance=0.1, max_iterations=100)
    statistics = _statistics(kind, classes, dimensions, seed)
    try:
        result = fit_fixed_point(statistics, config)
    except FixedPointDiverged as fault:
        assert fault.iteration == len(fault.residuals) + 1  # noqa: PT017
        return
    result.prior.check()
    assert torch.isfinite(result.residuals).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_coinciding_classes_diverge_at_once(kind, seed):
    statistics = _statistics(kind, dimensions=6, seed=seed)
    mean = statistics.mean.clone()
    mean[3] = mean[1]
    spread = (statistics.covariance if kind == "full" else statistics.variance).clone()
    spread[3] = spread[1]
    same = ClassStatistics(statistics.count, mean, **{"covariance" if kind == "full" else "variance": spread})
    with pytest.raises(FixedPointDiverged, match="of class 1") as caught:
        fit_fixed_point(same, EXACT)
    assert (caught.value.iteration, caught.value.class_index) == (1, 1)
    assert caught.value.quantity in ("repulsion kernel", "KLDs (below rounding error)")
    assert caught.value.residuals == []


def test_divergence_survives_pickling():
    """Exceptions of worker processes are pickled."""
    again = pickle.loads(pickle.dumps(FixedPointDiverged(3, 2, "variance", 1e6)))
    assert isinstance(again, Diverged)
    assert (again.iteration, again.class_index, again.quantity, again.weight) == (3, 2, "variance", 1e6)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1])
def test_class_of_too_few_samples_and_a_single_class_are_refused(count):
    statistics = _statistics()
    statistics.count[2] = count
    with pytest.raises(ValueError, match=rf"class 2.*{count}"):
        fit_fixed_point(statistics, RELEASED)
    with pytest.raises(ValueError, match=r"2 classes.*1"):
        fit_fixed_point(_statistics(classes=1), RELEASED)


def test_full_matrices_are_for_the_exact_update_with_covariances():
    full = _prior_of(_statistics("full"))
    with pytest.raises(ValueError, match="released"):
        fit_fixed_point(_statistics("full"), RELEASED)
    with pytest.raises(ValueError, match="released"):
        fit_fixed_point(_statistics(), RELEASED, full)
    with pytest.raises(ValueError, match="covariances"):
        fit_fixed_point(_statistics(), EXACT, full)


def test_start_of_another_shape_or_that_is_no_gaussian_is_refused():
    with pytest.raises(ValueError, match=r"initial:.*\(5, 3\)"):
        fit_fixed_point(_statistics(), RELEASED, _prior_of(_statistics(classes=5)))
    initial = GaussianPrior(torch.zeros(4, 3), torch.ones(4, 3))
    initial.variance[1, 1] = 0
    with pytest.raises(ValueError, match=r"variance.*class 1"):
        fit_fixed_point(_statistics(), RELEASED, initial)


@pytest.mark.parametrize("setting", [{"weight": -1.0}, {"weight": math.nan}, {"alpha": 0.0}, {"max_iterations": 0}])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        FixedPointConfig(**({"weight": 1.0} | setting))


# ---- memory ----------------------------------------------------------------------------------------------------------


class _LargestTensor(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(leaf.numel() for leaf in tree_iter(result) if isinstance(leaf, torch.Tensor))])
        return result


@pytest.mark.parametrize(("kind", "config"), [("diagonal", RELEASED), ("diagonal", EXACT), ("full", EXACT)])
@pytest.mark.parametrize(("classes", "dimensions"), [(40, 50), (30, 8)])
def test_no_array_holds_a_vector_for_every_pair(kind, config, classes, dimensions):
    """K² and K·D numbers (K·D² with full covariances), but never K²·D (K²·D²)."""
    statistics = _statistics(kind, classes, dimensions)
    with _LargestTensor() as largest:
        fit_fixed_point(statistics, replace(config, weight=1.0, max_iterations=2))
    assert 0 < largest.numel <= max(classes**2, classes * dimensions ** (2 if kind == "full" else 1))


def test_an_iteration_that_is_cut_short_is_a_warning(caplog):
    statistics = ClassStatistics(torch.tensor([9, 9]), torch.tensor([[0.0], [3.0]]), torch.ones(2, 1))
    initial = GaussianPrior(statistics.mean, statistics.variance)
    for iterations in (1, 1000):
        caplog.clear()
        fit_prior(statistics, initial, 10.0, FixedPointSettings(max_iterations=iterations))
        assert ("not converged after 1 iterations" in caplog.text) == (iterations == 1)
