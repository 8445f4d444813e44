import itertools
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nfpi.priors import ClassStatistics


def _latents(count=40, classes=3, dimensions=4, seed=0):
    """Latents and labels; every class has its own moments, and two latents at least."""
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.tile(np.arange(classes), 2), generator.integers(0, classes, count - 2 * classes)])
    generator.shuffle(labels)
    mixing = generator.normal(size=(classes, dimensions, dimensions))
    z = np.einsum("nij,nj->ni", mixing[labels], generator.normal(size=(count, dimensions))) + labels[:, None]
    return torch.from_numpy(z), torch.from_numpy(labels)


def _assert_moments(statistics, z, y, rtol=1e-12, atol=1e-12):
    """numpy's mean, variance and covariance, class by class."""
    for label in range(statistics.num_classes):
        own = z[y == label].numpy()
        assert statistics.count[label] == len(own)
        np.testing.assert_allclose(statistics.mean[label], own.mean(0), rtol=rtol, atol=atol)
        np.testing.assert_allclose(statistics.variance[label], own.var(0, ddof=1), rtol=rtol, atol=atol)
        if statistics.covariance is not None:
            np.testing.assert_allclose(statistics.covariance[label], np.cov(own.T, ddof=1), rtol=rtol, atol=atol)


@pytest.mark.parametrize("covariance", [False, True])
def test_moments_are_those_of_numpy(covariance):
    z, y = _latents()
    statistics = ClassStatistics.from_latents(z, y, covariance=covariance)
    assert (statistics.covariance is not None) == covariance
    assert statistics.num_classes == 3
    _assert_moments(statistics, z, y)
    statistics.check()


def test_images_are_taken_as_vectors_and_in_float64():
    z, y = _latents(dimensions=12)
    statistics = ClassStatistics.from_latents(z.float().view(-1, 3, 2, 2), y)
    assert statistics.mean.dtype == statistics.variance.dtype == torch.float64
    _assert_moments(statistics, z.float().double(), y)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=6),
    order=st.randoms(use_true_random=False),
    covariance=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_split_and_any_order_of_merging_give_the_same(cuts, order, covariance, seed):
    """Parts may be empty, of one latent, or without some classes."""
    z, y = _latents(seed=seed)
    edges = [0, *sorted(cuts), 40]
    parts = [slice(low, high) for low, high in itertools.pairwise(edges)]
    updated = ClassStatistics.empty(3, 4, covariance)
    for part in parts:
        assert updated.update(z[part], y[part]) is updated
    _assert_moments(updated, z, y)

    pieces = [ClassStatistics.empty(3, 4, covariance).update(z[part], y[part]) for part in parts]
    while len(pieces) > 1:
        order.shuffle(pieces)
        pieces.append(pieces.pop().merge(pieces.pop()))
    _assert_moments(pieces[0], z, y)


@pytest.mark.parametrize("covariance", [False, True])
def test_variances_survive_a_large_offset(covariance):
    """Sums of squares would lose every digit: 1e16 against 1."""
    z, y = _latents(count=400)
    statistics = ClassStatistics.empty(3, 4, covariance)
    for part in range(0, 400, 16):
        statistics.update(z[part : part + 16] + 1e8, y[part : part + 16])
    for label in range(3):
        np.testing.assert_allclose(statistics.variance[label], z[y == label].numpy().var(0, ddof=1), rtol=1e-6)
        np.testing.assert_allclose(statistics.mean[label] - 1e8, z[y == label].numpy().mean(0), rtol=0, atol=1e-6)


def test_given_moments_go_on_from_where_they_were():
    z, y = _latents()
    half = ClassStatistics.from_latents(z[:20], y[:20], num_classes=3, covariance=True)
    assert (half.count > 1).all()
    again = ClassStatistics(count=half.count, mean=half.mean, variance=half.variance, covariance=half.covariance)
    half.update(z[20:], y[20:])
    _assert_moments(half, z, y)
    _assert_moments(again.update(z[20:], y[20:]), z, y)


def test_merging_leaves_the_other_statistics_alone():
    z, y = _latents()
    one = ClassStatistics.from_latents(z[:20], y[:20], num_classes=3)
    other = ClassStatistics.from_latents(z[20:], y[20:], num_classes=3)
    before = [other.count.clone(), other.mean.clone(), other.variance.clone()]
    one.merge(other)
    for kept, now in zip(before, (other.count, other.mean, other.variance), strict=True):
        assert torch.equal(kept, now)


def test_statistics_do_not_change_the_tensors_they_were_given():
    z, y = _latents()
    mean, variance = torch.zeros(3, 4, dtype=torch.float64), torch.ones(3, 4, dtype=torch.float64)
    count = torch.full((3,), 5.0, dtype=torch.float64)
    covariance = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    ClassStatistics(count=count, mean=mean, variance=variance, covariance=covariance).update(z, y)
    assert not mean.any()
    assert (variance == 1).all()
    assert (count == 5).all()


@pytest.mark.parametrize("count", [0, 1])
def test_class_of_too_few_latents_has_no_variance_and_fails_the_check(count):
    z, y = _latents()
    keep = (y != 1) | (torch.cumsum(y == 1, 0) <= count)
    statistics = ClassStatistics.from_latents(z[keep], y[keep], num_classes=3)
    assert statistics.count[1] == count
    assert statistics.variance[1].isnan().all()
    assert statistics.variance[[0, 2]].isfinite().all()
    with pytest.raises(ValueError, match=rf"class 1.*{count}"):
        statistics.check()


def test_dimension_that_does_not_vary_fails_the_check():
    z, y = _latents()
    z[y == 2, 3] = 0.25
    with pytest.raises(ValueError, match="class 2: dimension 3"):
        ClassStatistics.from_latents(z, y).check()


@pytest.mark.parametrize(
    ("labels", "named"), [([3, 0, 2], "3"), ([-1, 0, 2], "-1"), ([True, False], "bool"), ([0.0, 1.0], "float32")]
)
def test_labels_out_of_range_or_that_are_no_integers_are_refused(labels, named):
    labels = torch.tensor(labels)
    with pytest.raises(ValueError, match=rf"labels:.*{named}$"):
        ClassStatistics.from_latents(torch.randn(len(labels), 4), labels, num_classes=3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_latents_that_are_not_finite_are_refused_and_leave_no_trace(value):
    z, y = _latents()
    statistics = ClassStatistics.from_latents(z, y)
    bad = z.clone()
    bad[7, 2] = value
    with pytest.raises(FloatingPointError, match="not finite"):
        statistics.update(bad, y)
    _assert_moments(statistics, z, y)


def test_latents_of_another_size_are_refused():
    for shape in ((2, 5), (2, 1), (2, 1, 2, 3), (4,)):
        with pytest.raises(ValueError, match=rf"latents:.*shape {re.escape(str(shape))}$"):
            ClassStatistics.empty(3, 4).update(torch.zeros(shape), torch.zeros(shape[0], dtype=torch.long))


@pytest.mark.parametrize("covariance", [False, True])
@pytest.mark.parametrize("shape", [(1,), (39,), (40, 1), ()])
def test_labels_of_another_shape_are_refused_and_leave_no_trace(shape, covariance):
    z, y = _latents()
    statistics = ClassStatistics.from_latents(z, y, covariance=covariance)
    for use in (statistics.update, ClassStatistics.from_latents):
        with pytest.raises(ValueError, match=rf"^labels:.*shape {re.escape(str(shape))}$"):
            use(z, torch.zeros(shape, dtype=torch.long))
    _assert_moments(statistics, z, y)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_integer_labels_of_any_dtype_are_indices(dtype):
    """Indexing takes uint8 for a mask."""
    z, y = _latents(classes=2)
    _assert_moments(ClassStatistics.from_latents(z, y.to(dtype)), z, y)


def test_no_latents_do_not_tell_the_number_of_classes():
    z, y = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match=r"^labels:.*none$"):
        ClassStatistics.from_latents(z, y)
    with pytest.raises(ValueError, match=r"class 0.*0"):
        ClassStatistics.from_latents(z, y, num_classes=3).check()


@pytest.mark.parametrize("covariance", [False, True])
def test_one_class_in_one_dimension(covariance):
    z, y = _latents(classes=1, dimensions=1)
    statistics = ClassStatistics.from_latents(z, y, covariance=covariance)
    assert (statistics.num_classes, statistics.mean.shape, statistics.variance.shape) == (1, (1, 1), (1, 1))
    statistics.check()
    assert statistics.mean.item() == pytest.approx(z.mean().item())
    assert statistics.variance.item() == pytest.approx(z.var().item())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4), torch.zeros(4, dtype=torch.long)), r"latents:.*shape \(4,\)"),
        ((torch.zeros(2, 0), torch.zeros(2, dtype=torch.long)), "statistics.*1 and 0"),
        ((torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 0), "statistics:.*0 and 3"),
        ((torch.zeros(2, 3), -torch.ones(2, dtype=torch.long)), "labels:.*-1"),
    ],
)
def test_latents_without_classes_or_dimensions_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ClassStatistics.from_latents(*arguments)


@pytest.mark.parametrize("other", [(2, 4, False), (3, 5, False), (3, 4, True)])
def test_statistics_of_another_kind_are_not_merged(other):
    with pytest.raises(ValueError, match=re.escape(str(other[:2]))):
        ClassStatistics.empty(3, 4).merge(ClassStatistics.empty(*other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variance": torch.ones(2, 1)}, r"variance:.*\(2, 1\)"),
        ({"variance": torch.ones(1, 4)}, r"variance:.*\(1, 4\)"),
        ({"variance": torch.ones(4)}, r"variance:.*\(4,\)"),
        ({"covariance": torch.ones(2, 3, 3)}, r"covariance:.*\(2, 3, 3\)"),
        ({"covariance": torch.ones(1, 4, 4)}, r"covariance:.*\(1, 4, 4\)"),
        ({"covariance": torch.ones(2, 3, 3), "variance": None}, r"covariance:.*\(2, 3, 3\)"),
        ({"covariance": torch.ones(2, 4), "variance": None}, r"covariance:.*\(2, 4\)"),
        ({"variance": None}, ".*covariance.*"),
        ({"mean": torch.zeros(2)}, r"mean:.*\(2,\)"),
        ({"mean": torch.zeros(3, 4)}, r"mean:.*\(3, 4\)"),
        ({"mean": torch.zeros(2, 0), "variance": torch.zeros(2, 0)}, r"mean:.*\(2, 0\)"),
        ({"count": torch.ones(1)}, r"mean:.*\(2, 4\)"),
        ({"count": torch.ones(2, 1)}, r"count:.*\(2, 1\)"),
        ({"count": torch.ones(0)}, r"count:.*\(0,\)"),
        ({"count": torch.tensor(5)}, r"count:.*\(\)"),
    ],
)
def test_moments_are_not_broadcast(changes, message):
    moments = {"count": torch.full((2,), 5), "mean": torch.zeros(2, 4), "variance": torch.ones(2, 4)}
    with pytest.raises(ValueError, match=f"^{message}$"):
        ClassStatistics(**moments | changes)


def test_covariance_that_is_not_finite_fails_the_check():
    """The fixed-point iteration would report a divergence, which is a result."""
    z, y = _latents()
    covariance = ClassStatistics.from_latents(z, y, covariance=True).covariance
    covariance[1, 0, 2] = torch.nan
    statistics = ClassStatistics(torch.bincount(y), torch.zeros(3, 4), covariance=covariance)
    with pytest.raises(ValueError, match=r"^covariance: "):
        statistics.check()
