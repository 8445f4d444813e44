"""Bounds of the couplings' series that are held on the host."""

from __future__ import annotations

import logging
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nfpi import linalg
from nfpi.config.flows import GlowSettings
from nfpi.flows import GlowFlow, MatrixExponentialFlow
from nfpi.flows.bijection import skip_initialization
from nfpi.flows.coupling import SeriesCoupling
from nfpi.flows.series import SeriesBounds

SHAPE = (7, 4, 4)
"""Of a flow whose first level has couplings by full matrices, and whose second has more channels, and low rank."""


def make_flow(seed: int = 0) -> MatrixExponentialFlow:
    torch.manual_seed(seed)
    flow = MatrixExponentialFlow(SHAPE, num_flows=[1, 2], num_blocks=[1, 1], hidden_channels=[4, 4])
    for parameter in flow.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return flow


def couplings_of(flow: MatrixExponentialFlow) -> list[SeriesCoupling]:
    return [module for module in flow.modules() if isinstance(module, SeriesCoupling)]


def own_bounds(flow: MatrixExponentialFlow) -> list[float]:
    return [(c.rescale.abs() + c.reshift.abs()).item() for c in couplings_of(flow)]


def grow(flow: MatrixExponentialFlow, factor: float, index: int | None = None) -> None:
    for coupling in couplings_of(flow)[slice(None) if index is None else slice(index, index + 1)]:
        coupling.rescale.data *= factor
        coupling.reshift.data *= factor


@pytest.fixture
def flow() -> MatrixExponentialFlow:
    return make_flow()


def test_series_are_as_long_as_the_matrices_of_a_batch_ask(flow, monkeypatch):
    """S = r tanh(s x + b) + u with ten times r and a tenth of s is about the same for small x, its bound is not."""
    plans, plan = [], linalg.series_plan
    monkeypatch.setattr(linalg, "series_plan", lambda *norm_and_dtype: plans.append(plan(*norm_and_dtype)) or plans[-1])
    grow(flow, 10.0)
    for coupling in couplings_of(flow):
        coupling.scale.data /= 10.0
        coupling.shift.data.zero_()
        coupling.reshift.data.zero_()
    x = torch.randn(3, *SHAPE)
    with torch.no_grad(), skip_initialization():
        z, log_abs_det = flow.eval()(x)
        measured, plans[:] = [math.prod(p) for p in plans], []
        SeriesBounds(flow).choose()
        by_bound = flow.train()(x)
    assert sum(measured) < sum(math.prod(p) for p in plans) / 2
    torch.testing.assert_close((z, log_abs_det), by_bound, rtol=1e-5, atol=1e-5)


def test_an_image_that_is_not_a_number_leaves_the_others(flow):
    x = torch.randn(3, *SHAPE)
    broken = x.index_fill(0, torch.tensor([1]), math.nan)
    flow.eval()
    with torch.no_grad(), skip_initialization():
        (z, _), (others, _) = flow(broken), flow(x)
    assert z[1].isnan().any()
    torch.testing.assert_close(z[[0, 2]], others[[0, 2]], rtol=1e-5, atol=1e-5)


def test_bounds_are_above_the_weights_and_few(flow):
    values = set()
    for factor in (1.0, 1.1, 1.3, 1.7, 0.9, 3.0):
        grow(flow, factor)
        bounds = SeriesBounds(flow)
        assert bounds.choose()
        for coupling, own, held in zip(couplings_of(flow), own_bounds(flow), bounds.held, strict=True):
            assert 1.15 * own <= held * (1 + 1e-8) < 2.4 * own
            assert coupling.held_bound == held
            values.add(round(held * coupling.split[1], 6))
    assert values <= {1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0}


def test_bounds_stay_until_one_is_nearly_reached_and_change_together(flow):
    bounds = SeriesBounds(flow)
    bounds.choose()
    before = bounds.held
    grow(flow, 1.02)
    assert not bounds.choose()
    assert bounds.held == before
    coupling, own = couplings_of(flow)[0], own_bounds(flow)[0]
    grow(flow, before[0] / own / 1.04, index=0)
    grow(flow, 0.3, index=1)
    assert bounds.choose()
    assert coupling.held_bound > before[0]
    assert bounds.held[1] < before[1]
    grow(flow, 0.3)
    assert bounds.choose()
    assert all(new < old for new, old in zip(bounds.held, before, strict=True))


def test_held_bounds_change_what_is_computed_by_rounding_only(flow):
    x = 2 * torch.rand(3, *SHAPE) - 1
    z, log_abs_det = flow(x)
    bounds = SeriesBounds(flow)
    bounds.choose()
    for found, expected in zip(flow(x), (z, log_abs_det), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for coupling in couplings_of(flow):
        coupling.held_bound = 1e-9
    assert (flow(x)[0] - z).abs().max() > 1e-4  # they are used in training mode
    assert all(torch.equal(*pair) for pair in zip(flow.eval()(x), (z, log_abs_det), strict=True))  # but not elsewhere
    bounds.release()
    assert all(torch.equal(*pair) for pair in zip(flow.train()(x), (z, log_abs_det), strict=True))


def test_weights_that_exceed_a_bound_are_noticed_and_answered(flow, caplog):
    bounds = SeriesBounds(flow)
    bounds.choose()
    before = bounds.held
    bounds.watch()
    with caplog.at_level(logging.INFO):
        assert not bounds.renew_exceeded(20)
        grow(flow, 1.6, index=2)
        assert not bounds.renew_exceeded(40)  # no step was watched
        bounds.watch()
        assert bounds.renew_exceeded(40)
    assert bounds.held[2] > 1.15 * own_bounds(flow)[2] > before[2]
    assert [record.levelname for record in caplog.records] == ["INFO"]
    bounds.watch()
    assert not bounds.renew_exceeded(60)


def test_an_error_that_matters_is_a_warning(flow, caplog):
    bounds = SeriesBounds(flow)
    bounds.choose()
    grow(flow, 4.0)
    bounds.watch()
    assert bounds.renew_exceeded(20)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_weights_that_exceeded_a_bound_between_two_checks_are_noticed(flow, caplog):
    bounds = SeriesBounds(flow)
    bounds.choose()
    grow(flow, 2.5, index=0)
    bounds.watch()
    grow(flow, 0.4, index=0)
    bounds.watch()
    with caplog.at_level(logging.INFO):
        assert not bounds.renew_exceeded(20)  # the bounds are those of the weights again
    assert "step 20" in caplog.text


def test_a_step_reads_nothing_of_a_device():
    """On fake tensors reading a value raises; an exact bound is read."""
    held = SeriesBounds(make_flow())
    held.choose()
    with FakeTensorMode(), skip_initialization():
        flow = MatrixExponentialFlow(SHAPE, num_flows=[1, 2], num_blocks=[1, 1], hidden_channels=[4, 4])
        bounds, x = SeriesBounds(flow, held.held), torch.empty(2, *SHAPE)
        flow(x)[0].sum().backward()
        bounds.watch()
        bounds.release()
        with pytest.raises(Exception, match=r"item|_local_scalar_dense"):
            flow(x)


def test_bounds_of_an_interrupted_training_are_held_again(flow):
    bounds = SeriesBounds(flow)
    bounds.choose()
    again = make_flow()
    assert SeriesBounds(again, bounds.held).held == bounds.held
    assert [coupling.held_bound for coupling in couplings_of(again)] == bounds.held
    with pytest.raises(ValueError, match=r"bounds:.*2"):
        SeriesBounds(again, bounds.held[:2])


def test_lengths_grow_with_the_bounds(flow):
    short = SeriesBounds(flow).count_products()
    assert len(short) == 3
    assert all(3 < length < 20 for length in short)
    bounds = SeriesBounds(flow)
    bounds.choose()
    assert all(held >= own for held, own in zip(bounds.count_products(), short, strict=True))
    grow(flow, 20.0)
    assert all(long > held for long, held in zip(SeriesBounds(flow).count_products(), short, strict=True))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e6])
def test_weights_that_have_diverged_have_no_bound(flow, value):
    bounds = SeriesBounds(flow)
    bounds.choose()
    couplings_of(flow)[0].rescale.data.fill_(value)
    assert SeriesBounds(flow).count_products() == []
    with pytest.raises(FloatingPointError):
        bounds.choose()
    bounds.watch()
    with pytest.raises(FloatingPointError):
        bounds.renew_exceeded(20)


def test_a_flow_without_series_holds_nothing():
    bounds = SeriesBounds(GlowFlow((1, 4, 4), GlowSettings(num_flows=[1], hidden_channels=[4])))
    assert not bounds.choose()
    bounds.watch()
    assert not bounds.renew_exceeded(20)
    assert bounds.held is None
    assert bounds.count_products() == []
