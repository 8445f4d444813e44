import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfpi.linalg import exponential_action, geometric_mean, matrix_exponential, phi_action, symmetric_power, taylor_plan

NORMS = [0.1, 1.0, 3.0, 8.0]


def _field(channels, norm, pixels=5, batch=2, dtype=torch.float64):
    """Random fields whose largest ‖S‖₁ is `norm`, and vectors."""
    generator = torch.Generator().manual_seed(channels)
    field = torch.randn(batch, channels, channels, pixels, generator=generator, dtype=dtype)
    field *= norm / field.abs().sum(2).amax()
    return field, torch.randn(batch, channels, pixels, generator=generator, dtype=dtype)


def _matrices(field):
    """(B, P, C, C) of a field that is stored column by column with the pixels last."""
    return field.permute(0, 3, 2, 1).contiguous()


def _each_pixel(matrices, vector):
    return (matrices @ vector.permute(0, 2, 1).unsqueeze(3)).squeeze(3).permute(0, 2, 1)


def _definite(generator, *shape, dimensions):
    factor = torch.randn(*shape, dimensions, dimensions + 2, generator=generator, dtype=torch.float64)
    return factor @ factor.mT / dimensions


# ---- e^S x -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [1, 2, 6, 12, 24])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_action_is_the_exponential_times_the_vector(channels, norm, dtype):
    field, vector = _field(channels, norm, dtype=dtype)
    exact = _each_pixel(torch.linalg.matrix_exp(_matrices(field.double())), vector.double())
    # what rounding may do is bounded by the exponential of the absolute values
    scale = _each_pixel(torch.linalg.matrix_exp(_matrices(field.double().abs())), vector.double().abs())
    found = exponential_action(field, vector, norm)
    assert found.dtype == dtype
    assert ((found - exact).abs() / scale).max() < 10 * torch.finfo(dtype).eps


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("norm", [0.5, 5.0])
def test_gradients_of_the_action_are_its_derivatives(channels, norm):
    field, vector = _field(channels, norm, pixels=2, batch=1)
    assert torch.autograd.gradcheck(
        lambda field, vector: exponential_action(field, vector, norm + 1e-3),
        (field.requires_grad_(), vector.requires_grad_()),
    )


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_gradients_of_the_action_are_those_of_the_dense_exponential(norm, wanted):
    field, vector = _field(12, norm)
    field.requires_grad_(wanted[0])
    vector.requires_grad_(wanted[1])
    inputs = [tensor for tensor in (field, vector) if tensor.requires_grad]
    upstream = torch.randn_like(vector)
    ours = torch.autograd.grad(exponential_action(field, vector, norm), inputs, upstream)
    dense = _each_pixel(torch.linalg.matrix_exp(_matrices(field)), vector)
    for found, expected in zip(ours, torch.autograd.grad(dense, inputs, upstream), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * math.exp(norm))


def test_action_of_the_negative_field_undoes_it():
    field, vector = _field(8, 4.0)
    there = exponential_action(field, vector, 4.0)
    torch.testing.assert_close(exponential_action(-field, there, 4.0), vector, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", [1e-9, *NORMS])  # φ(M) v needs a term more than e^M: M v / 2
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_phi_action_is_its_series(channels, norm):
    field, vector = _field(channels, norm)
    matrices = _matrices(field)
    power = torch.eye(channels, dtype=torch.float64).expand_as(matrices)
    series = torch.zeros_like(matrices)
    for degree in range(60):
        series = series + power / float(math.factorial(degree + 1))
        power = power @ matrices
    torch.testing.assert_close(
        phi_action(field, vector, norm), _each_pixel(series, vector), rtol=1e-12, atol=1e-14 * math.exp(norm)
    )


def test_phi_action_does_not_depend_on_the_size_of_the_vector():
    field, vector = _field(3, 2.0)
    large = phi_action(field, 1e6 * vector, 2.0)
    torch.testing.assert_close(large, 1e6 * phi_action(field, vector, 2.0), rtol=1e-13, atol=1e-8)


def test_gradients_of_phi_action_are_its_derivatives():
    field, vector = _field(3, 2.0, pixels=2, batch=1)
    assert torch.autograd.gradcheck(
        lambda field, vector: phi_action(field, vector, 2.001), (field.requires_grad_(), vector.requires_grad_())
    )


# ---- the length of the series ----------------------------------------------------------------------------------------


def _remainder(theta, terms):
    """Σ_{k>m} θᵏ/k!, exact but for what 60 further terms leave."""
    term = Fraction(1)
    for degree in range(1, terms + 1):
        term *= theta / degree
    total = Fraction(0)
    for degree in range(terms + 1, terms + 61):
        term *= theta / degree
        total += term
    return total


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 100), st.sampled_from([1e-2, 1e-4, 2.0**-25, 2.0**-54]))
def test_remainder_of_the_series_is_within_the_tolerance_and_no_shorter_one_is(norm, tolerance):
    terms, steps = taylor_plan(norm, tolerance)
    theta = Fraction(norm) / steps
    assert theta <= 2
    assert _remainder(theta, terms) * steps <= Fraction(tolerance) * (1 + Fraction(1, 10**9))
    if terms > 2:
        assert _remainder(theta, terms - 2) * steps > Fraction(tolerance)


def test_remainder_holds_at_the_largest_norm_of_every_length():
    """Just below the norm where one more term is taken, the remainder is as large as it ever is."""
    for tolerance in (1e-2, 2.0**-25):
        low = 1e-3
        while (length := taylor_plan(low, tolerance)[0]) < taylor_plan(2.0, tolerance)[0]:
            high = 2.0
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if taylor_plan(middle, tolerance)[0] == length else (low, middle)
            assert _remainder(Fraction(low), length) <= Fraction(tolerance) * (1 + Fraction(1, 10**9))
            low = high


@given(st.floats(0, 50), st.floats(0, 50), st.floats(1e-16, 1e-2), st.floats(1e-16, 1e-2))
def test_more_is_taken_for_a_larger_norm_and_for_a_smaller_tolerance(a, b, loose, tight):
    small, large = sorted((a, b))
    tight, loose = sorted((loose, tight))
    assert taylor_plan(small, tight)[1] <= taylor_plan(large, tight)[1]
    if taylor_plan(small, tight)[1] == taylor_plan(large, tight)[1]:
        assert taylor_plan(small, tight)[0] <= taylor_plan(large, tight)[0]
    assert taylor_plan(large, loose)[0] <= taylor_plan(large, tight)[0]


@pytest.mark.parametrize("norm", [math.inf, math.nan, 1e8])
def test_norm_whose_exponential_is_no_number_is_refused(norm):
    with pytest.raises(FloatingPointError):
        exponential_action(torch.zeros(1, 2, 2, 1), torch.zeros(1, 2, 1), norm)


# ---- e^A -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [0.0, 1.0, 10.0, 30.0, 60.0])
@pytest.mark.parametrize("channels", [1, 2, 12, 48])
@pytest.mark.parametrize("skew", [True, False])
def test_matrix_exponential(channels, norm, skew):
    """The relative error in norm of a product of 256 factors is at most 256 times that of one."""
    matrix = torch.randn(channels, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = matrix - matrix.T if skew else matrix
    matrix *= norm / torch.linalg.matrix_norm(matrix, 2).clamp(min=1e-300)
    expected = torch.linalg.matrix_exp(matrix)
    truncation = 256 * (norm / 256) ** 10 / math.factorial(10)
    error = torch.linalg.matrix_norm(matrix_exponential(matrix) - expected, 2)
    # growth by e^{‖A‖₂} is the most there is; a skew matrix has none
    assert error <= (1e-12 + 2 * truncation) * (1 if skew else math.exp(norm))
    assert error <= 1e-8 * torch.linalg.matrix_norm(expected, 2)


def test_matrix_exponential_keeps_the_precision_of_its_argument_and_computes_in_float64():
    matrix = torch.randn(24, 24, generator=torch.Generator().manual_seed(0))
    found = matrix_exponential(matrix)
    assert found.dtype == torch.float32
    assert torch.equal(found, matrix_exponential(matrix.double()).float())


@pytest.mark.parametrize("norm", [0.5, 10.0])
def test_gradients_of_the_matrix_exponential_are_its_derivatives(norm):
    matrix = torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix = (matrix - matrix.T) * norm / 4 + 0.1 * matrix
    assert torch.autograd.gradcheck(matrix_exponential, matrix.requires_grad_())


# ---- powers and the geometric mean -----------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**31))
def test_geometric_mean_solves_its_equation(dimensions, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = _definite(generator, 2, 3, dimensions=dimensions)
    mean = geometric_mean(a, b)
    assert torch.equal(mean, mean.mT)
    assert torch.linalg.eigvalsh(mean).min() > 0
    torch.testing.assert_close(mean @ torch.linalg.solve(a, mean), b, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(mean, geometric_mean(b, a), rtol=1e-8, atol=1e-8)


def test_geometric_mean_of_diagonals_is_that_of_the_numbers():
    a, b = torch.rand(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(geometric_mean(a.diag_embed(), b.diag_embed()), (a * b).sqrt().diag_embed())


def test_symmetric_power():
    matrix = _definite(torch.Generator().manual_seed(0), 3, dimensions=4)
    torch.testing.assert_close(symmetric_power(matrix, -1.0), torch.linalg.inv(matrix))
    root = symmetric_power(matrix, 0.5)
    torch.testing.assert_close(root @ root, matrix)
    torch.testing.assert_close(symmetric_power(matrix, -0.5) @ root, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


@pytest.mark.parametrize("first", [True, False])
def test_geometric_mean_refuses_what_is_not_positive_definite(first):
    good = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    bad = good.clone()
    bad[1, 1, 1] = -1e-3
    with pytest.raises(torch.linalg.LinAlgError, match=r"-0\.001"):
        geometric_mean(*(bad, good) if first else (good, bad))


def test_geometric_mean_refuses_what_is_not_finite():
    bad = torch.full((2, 2), torch.nan, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError, match="not finite"):
        geometric_mean(bad, torch.eye(2, dtype=torch.float64))
