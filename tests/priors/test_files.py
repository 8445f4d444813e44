"""Files of priors and statistics: read as they were written, and nothing else accepted."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nfpi.priors import ClassStatistics, GaussianPrior
from nfpi.priors.files import load_prior, load_statistics, save_prior, save_statistics
from nfpi.runtime.formats import FormatError
from nfpi.runtime.tensors import save_tensors

HEADER = {"seed": 3, "λ": 0.1, "settings": {"update": "exact", "list": [1, 2.5, None]}}


@pytest.fixture
def prior() -> GaussianPrior:
    generator = torch.Generator().manual_seed(0)
    mean, variance = torch.rand(2, 3, 4, generator=generator, dtype=torch.float64)
    return GaussianPrior(mean, 0.1 + variance)


@pytest.fixture
def full_prior(prior: GaussianPrior) -> GaussianPrior:
    root = torch.randn(3, 4, 4, dtype=torch.float64)
    return GaussianPrior(prior.mean, covariance=root @ root.mT + torch.eye(4))


def assert_refused(file: Path, read: Callable[[Path], object], message: str | None = None) -> None:
    """In one line that names the file."""
    with pytest.raises(FormatError, match=message) as error:
        read(file)
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


def test_a_prior_is_read_as_it_was_written(prior, full_prior, tmp_path):
    for written in (prior, full_prior):
        save_prior(tmp_path / "prior.safetensors", written, HEADER)
        found, header = load_prior(tmp_path / "prior.safetensors")
        assert header == HEADER
        assert torch.equal(found.mean, written.mean)
        assert found.mean.dtype == torch.float64
        assert torch.equal(found.variance, written.variance)
        assert found.is_full == written.is_full
    assert torch.equal(found.covariance, full_prior.covariance)


@pytest.mark.parametrize("covariance", [False, True])
def test_statistics_that_were_read_can_be_updated(tmp_path, covariance):
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(40, 4, generator=generator), torch.arange(40) % 3
    first = ClassStatistics.from_latents(z[:30], y[:30], covariance=covariance)
    save_statistics(tmp_path / "statistics.safetensors", first, HEADER)
    found = load_statistics(tmp_path / "statistics.safetensors").update(z[30:], y[30:])
    expected = ClassStatistics.from_latents(z, y, covariance=covariance)
    assert torch.equal(found.count, expected.count)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-12, atol=1e-12)
    if covariance:
        torch.testing.assert_close(found.covariance, expected.covariance, rtol=1e-12, atol=1e-12)
    else:
        assert found.covariance is None


def test_improper_gaussians_are_not_written(prior, full_prior, tmp_path):
    flat = GaussianPrior(prior.mean, prior.variance.index_fill(1, torch.tensor([2]), 0.0))
    indefinite = full_prior.covariance.clone()
    indefinite[1] = -torch.eye(4)
    asymmetric = full_prior.covariance.clone()
    asymmetric[0, 0, 1] += 1
    for wrong, message in (
        (GaussianPrior(prior.mean, covariance=asymmetric), "class 0"),
        (flat, "variance.*class 0"),
        (GaussianPrior(prior.mean, covariance=indefinite), "class 1"),
    ):
        with pytest.raises(ValueError, match=message):
            save_prior(tmp_path / "prior.safetensors", wrong, {})
    assert list(tmp_path.iterdir()) == []


def test_statistics_without_a_variance_are_not_written(tmp_path):
    statistics = ClassStatistics.from_latents(torch.randn(5, 3), torch.tensor([0, 0, 1, 2, 2]))
    with pytest.raises(ValueError, match=r"class 1.*1"):
        save_statistics(tmp_path / "statistics.safetensors", statistics, {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_refused(prior, tmp_path):
    save_tensors(tmp_path / "flow", {"weight": torch.ones(2)}, {})
    save_prior(tmp_path / "prior", prior, {})
    statistics = ClassStatistics.from_latents(torch.randn(6, 3), torch.arange(6) % 2)
    save_statistics(tmp_path / "statistics", statistics, {})
    for read, others in ((load_prior, ("flow",)), (load_statistics, ("flow", "prior"))):
        for other in others:
            assert_refused(tmp_path / other, read)


@pytest.mark.parametrize(
    "tensors",
    [
        {"mean": torch.zeros(2, 3), "variance": -torch.ones(2, 3)},
        {"mean": torch.zeros(2, 3), "variance": torch.ones(3, 3)},
        {"mean": torch.zeros(2, 3)},
        {"mean": torch.zeros(2, 3, dtype=torch.int64), "variance": torch.ones(2, 3)},
        {"mean": torch.zeros(1, 2), "covariance": torch.tensor([[[1.0, 0.5], [0.0, 1.0]]])},
        {"mean": torch.zeros(2, 3), "variance": torch.ones(2, 3), "count": torch.ones(2)},
    ],
)
def test_improper_gaussians_are_not_read(tmp_path, tensors):
    file = tmp_path / "prior.safetensors"
    save_tensors(file, tensors, {})
    assert_refused(file, load_prior)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("full", [False, True])
def test_gaussians_of_any_precision_are_read_score_and_sample(tmp_path, dtype, full):
    second = {"covariance": 2 * torch.eye(2)[None]} if full else {"variance": torch.full((1, 2), 2.0)}
    tensors = {"mean": torch.zeros(1, 2), **second}
    save_tensors(tmp_path / "prior", {name: tensor.to(dtype) for name, tensor in tensors.items()}, {})
    found = load_prior(tmp_path / "prior")[0]
    assert found.mean.dtype == (dtype if dtype.itemsize >= 4 else torch.float32)
    expected, label = torch.tensor([[-math.log(4 * math.pi)]]).double(), torch.zeros(1, dtype=torch.long)
    torch.testing.assert_close(found.log_prob(torch.zeros(1, 2)), expected)
    torch.testing.assert_close(found.log_prob_of(torch.zeros(1, 2), label).double(), expected[0])
    assert found.sample(label).isfinite().all()


COUNT, MEAN, VARIANCE = torch.tensor([2.0, 3.0]), torch.zeros(2, 3), torch.ones(2, 3)
SOUND = {"count": COUNT, "mean": MEAN, "variance": VARIANCE}
IDENTITY = torch.eye(3).expand(2, 3, 3).clone()


def changed(tensor: torch.Tensor, value: float, *place: int) -> torch.Tensor:
    tensor = tensor.clone()
    tensor[place] = value
    return tensor


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": changed(COUNT, torch.nan, 0)}, "count"),
        ({"count": changed(COUNT, 1, 0)}, r"class 0.*1"),
        ({"count": changed(COUNT, -5, 1)}, "class 1.*-5"),
        ({"count": changed(COUNT, 2.5, 0)}, "count"),
        ({"count": COUNT.long()}, "count"),
        ({"count": COUNT[:1]}, r"mean:.*\(2, 3\)"),
        ({"mean": changed(MEAN, torch.inf, 0, 1)}, "mean"),
        ({"mean": MEAN[0]}, r"mean:.*\(3,\)"),
        ({"variance": changed(VARIANCE, torch.nan, 0, 1)}, "variance"),
        ({"variance": changed(VARIANCE, -1, 1, 2)}, "class 1: dimension 2 has the variance -1"),
        ({"variance": VARIANCE[:, :1]}, r"variance:.*\(2, 1\)"),
        ({"covariance": IDENTITY[:, :2]}, r"covariance:.*\(2, 2, 3\)"),
        ({"covariance": changed(IDENTITY, 0.5, 1, 0, 1)}, "covariance: not symmetric"),
        ({"covariance": 2 * IDENTITY}, "variance: not the diagonal"),
        ({"covariance": IDENTITY + 2 * (1 - torch.eye(3))}, "a variance along some direction is negative"),
        ({"covariance": changed(IDENTITY, torch.nan, 0, 0, 1)}, "covariance"),
        ({"other": MEAN}, "with other"),
    ],
)
def test_damaged_statistics_are_an_error_that_names_the_file(tmp_path, changes, message):
    """A fit must not meet them: what it would say is that it diverged, which is a result."""
    file = tmp_path / "statistics.safetensors"
    save_file(SOUND, file, {"nfpi": "{}"})
    assert torch.equal(load_statistics(file).variance, VARIANCE.double())
    save_file({name: tensor.clone() for name, tensor in (SOUND | changes).items()}, file, {"nfpi": "{}"})
    assert_refused(file, load_statistics, message)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_statistics_of_several_precisions_are_read(tmp_path, dtype):
    save_tensors(tmp_path / "statistics", SOUND | {"covariance": IDENTITY.to(dtype)}, {})
    assert torch.equal(load_statistics(tmp_path / "statistics").covariance, IDENTITY.double())


@pytest.mark.parametrize("header", [{"seed": "3"}, {"seed": -1}, {"start": 4}])
def test_a_damaged_header_is_refused(prior, tmp_path, header):
    file = tmp_path / "prior.safetensors"
    save_prior(file, prior, header)
    assert_refused(file, load_prior)
