from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import ClassStatistics, GaussianPrior
from nfpi.runtime.tensors import FormatError, load_flow, load_prior, load_statistics, load_tensors, save_flow, save_prior, save_statistics, save_tensors

HEADER = {"seed": 3, "λ": 0.1, "settings": {"update": "exact", "list": [1, 2.5, None]}}


@pytest.fixture
def flow() -> MatrixExponentialFlow:
    torch.manual_seed(0)
    return MatrixExponentialFlow((1, 8, 8), [2, 1], [1, 0], [8, 4], "affine")


@pytest.fixture
def prior() -> GaussianPrior:
    return GaussianPrior(torch.randn(3, 4, dtype=torch.float64), 0.1 + torch.rand(3, 4, dtype=torch.float64))


@pytest.fixture
def full_prior(prior: GaussianPrior) -> GaussianPrior:
    root = torch.randn(3, 4, 4, dtype=torch.float64)
    return GaussianPrior(prior.mean, covariance=root @ root.mT + torch.eye(4))


# ---- there and back -----------------------------------------------------------------------------------------


def test_a_flow_comes_back_as_it_was(flow, tmp_path):
    save_flow(tmp_path / "flow.safetensors", flow, HEADER)
    found, header = load_flow(tmp_path / "flow.safetensors")
    assert header == {**HEADER, "flow": flow.settings}
    assert found.settings == flow.settings
    assert found.state_dict().keys() == flow.state_dict().keys()
    x = torch.randn(2, 1, 8, 8)
    for left, right in zip(found(x), flow(x), strict=True):
        assert torch.equal(left, right)


def test_a_diagonal_prior_comes_back_as_it_was(prior, tmp_path):
    save_prior(tmp_path / "prior.safetensors", prior, HEADER)
    found, header = load_prior(tmp_path / "prior.safetensors")
    assert header == HEADER
    assert torch.equal(found.mean, prior.mean)
    assert found.mean.dtype == torch.float64
    assert torch.equal(found.variance, prior.variance)
    assert not found.is_full


def test_a_full_prior_comes_back_as_it_was(full_prior, tmp_path):
    save_prior(tmp_path / "prior.safetensors", full_prior, HEADER)
    found, _ = load_prior(tmp_path / "prior.safetensors")
    assert torch.equal(found.mean, full_prior.mean)
    assert torch.equal(found.covariance, full_prior.covariance)


@pytest.mark.parametrize("covariance", [False, True])
def test_statistics_come_back_and_can_be_added_to(tmp_path, covariance):
    generator = torch.Generator().manual_seed(0)
    z, y = torch.randn(40, 4, generator=generator), torch.arange(40) % 3
    save_statistics(
        tmp_path / "statistics.safetensors", ClassStatistics.from_latents(z[:30], y[:30], covariance=covariance), HEADER
    )
    found = load_statistics(tmp_path / "statistics.safetensors").update(z[30:], y[30:])
    expected = ClassStatistics.from_latents(z, y, covariance=covariance)
    assert torch.equal(found.count, expected.count)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.variance, expected.variance, rtol=1e-12, atol=1e-12)
    if covariance:
        torch.testing.assert_close(found.covariance, expected.covariance, rtol=1e-12, atol=1e-12)
    else:
        assert found.covariance is None


def test_views_and_dtypes_are_kept(tmp_path):
    tensors = {
        "transposed": torch.arange(6.0).view(2, 3).T,
        "channels_last": torch.randn(1, 2, 3, 3).contiguous(memory_format=torch.channels_last),
        "count": torch.tensor([1, 2], dtype=torch.int64),
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "half": torch.tensor([0.5], dtype=torch.bfloat16),
    }
    save_tensors(tmp_path / "t.safetensors", tensors, {})
    found, header = load_tensors(tmp_path / "t.safetensors")
    assert header == {}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_no_code_runs_when_a_file_is_read(tmp_path):
    """It is safetensors, not pickle."""
    save_tensors(tmp_path / "t.safetensors", {"x": torch.ones(2)}, HEADER)
    content = (tmp_path / "t.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    declared = json.loads(content[8 : 8 + length])
    assert set(declared) == {"__metadata__", "x"}
    assert json.loads(declared["__metadata__"]["nfpi"]) == HEADER


# ---- what is never written ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_refused_and_nothing_written(flow, tmp_path, value):
    with torch.no_grad():
        flow.levels[1][0].actnorm.shift[0, 0, 0] = value
    file = tmp_path / "flow.safetensors"
    with pytest.raises(FormatError, match=r"flow\.safetensors: levels\.1\.0\.actnorm\.shift: expected finite") as error:
        save_flow(file, flow, {})
    assert_one_line_naming(error, file)
    with pytest.raises(ValueError, match="JSON"):
        save_tensors(file, {}, {"λ": value})
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_survives_a_failed_write(prior, tmp_path):
    file = tmp_path / "prior.safetensors"
    save_prior(file, prior, HEADER)
    with pytest.raises(FormatError):
        save_tensors(file, {"mean": torch.tensor([torch.nan])}, {})
    assert torch.equal(load_prior(file)[0].mean, prior.mean)
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_no_gaussian_is_refused(prior, full_prior, tmp_path):
    flat = GaussianPrior(prior.mean, prior.variance.index_fill(1, torch.tensor([2]), 0.0))
    asymmetric = full_prior.covariance.clone()
    asymmetric[1] = -torch.eye(4)
    for wrong, message in (
        (flat, "variance is not positive and finite in class 0"),
        (GaussianPrior(prior.mean, covariance=asymmetric), "class 1"),
    ):
        with pytest.raises(ValueError, match=message):
            save_prior(tmp_path / "prior.safetensors", wrong, {})
    assert list(tmp_path.iterdir()) == []


def test_a_class_without_a_variance_is_refused(tmp_path):
    statistics = ClassStatistics.from_latents(torch.randn(5, 3), torch.tensor([0, 0, 1, 2, 2]))
    with pytest.raises(ValueError, match="class 1: its variance needs at least 2 samples, received 1"):
        save_statistics(tmp_path / "statistics.safetensors", statistics, {})
    assert list(tmp_path.iterdir()) == []


# ---- what is never read -------------------------------------------------------------------------------------


def assert_one_line_naming(error: pytest.ExceptionInfo, file: Path) -> None:
    assert str(error.value).startswith(f"{file}: ")
    assert "\n" not in str(error.value)


READERS: list[Callable[[Path], object]] = [load_flow, load_prior, load_statistics, load_tensors]


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file(read, tmp_path):
    file = tmp_path / "nothing.safetensors"
    with pytest.raises(FormatError, match="there is no such file") as error:
        read(file)
    assert_one_line_naming(error, file)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kept", [0, 4, 60, 0.5, -1])
def test_a_truncated_file(read, flow, tmp_path, kept):
    file = tmp_path / "flow.safetensors"
    save_flow(file, flow, {})
    content = file.read_bytes()
    file.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(FormatError, match="expected a safetensors file, received a damaged one") as error:
        read(file)
    assert_one_line_naming(error, file)


@pytest.mark.parametrize("read", READERS)
def test_a_file_of_another_kind(read, tmp_path):
    file, folder = tmp_path / "text.safetensors", tmp_path / "folder.safetensors"
    file.write_text("not tensors at all, but long enough for a header of its own")
    folder.mkdir()
    for wrong in (file, folder):
        with pytest.raises(FormatError, match="expected a safetensors file") as error:
            read(wrong)
        assert_one_line_naming(error, wrong)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"nfpi": "[1, 2]"}, {"nfpi": "{"}])
def test_a_safetensors_file_of_somebody_else(read, tmp_path, metadata):
    file = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"mean": torch.zeros(2, 2), "variance": torch.ones(2, 2)}, file, metadata)
    with pytest.raises(FormatError, match="expected") as error:
        read(file)
    assert_one_line_naming(error, file)


def test_one_of_our_files_in_the_place_of_another(flow, prior, tmp_path):
    save_flow(tmp_path / "flow", flow, {})
    save_prior(tmp_path / "prior", prior, {})
    statistics = ClassStatistics.from_latents(torch.randn(6, 3), torch.arange(6) % 2)
    save_statistics(tmp_path / "statistics", statistics, {})
    for read, others in (
        (load_flow, ("prior", "statistics")),
        (load_prior, ("flow",)),
        (load_statistics, ("flow", "prior")),
    ):
        for other in others:
            with pytest.raises(FormatError, match="received others") as error:
                read(tmp_path / other)
            assert_one_line_naming(error, tmp_path / other)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_channels": [16, 4]},
        {"num_flows": [1, 1]},
        {"num_blocks": [2, 0]},
        {"coupling": "matrix_exponential"},
        {"shape": [3, 8, 8]},
        {"shape": [1, 6, 8]},
        {"coupling": "linear"},
        {"levels": 2},
    ],
)
def test_weights_of_another_architecture(flow, tmp_path, change):
    file = tmp_path / "flow.safetensors"
    save_tensors(file, flow.state_dict(), {"flow": {**flow.settings, **change}})
    with pytest.raises(FormatError, match="expected the weights of a flow, received others") as error:
        load_flow(file)
    assert_one_line_naming(error, file)


def test_gaussians_that_are_none_are_refused_when_read(tmp_path):
    file = tmp_path / "prior.safetensors"
    for tensors in (
        {"mean": torch.zeros(2, 3), "variance": -torch.ones(2, 3)},
        {"mean": torch.zeros(2, 3), "variance": torch.ones(3, 3)},
        {"mean": torch.zeros(2, 3)},
    ):
        save_tensors(file, tensors, {})
        with pytest.raises(FormatError, match="expected class Gaussians, received others") as error:
            load_prior(file)
        assert_one_line_naming(error, file)
