"""The average of the weights, against its formula and against timm's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nfpi.training.state import WeightAverage


def module_with_buffers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 36, 3))


def change(module: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value += torch.randn(value.shape, generator=generator)
            else:
                value += 1


@pytest.mark.parametrize(("decay", "power", "update_after_step"), [(0.9999, 0.75, 4), (0.6, 0.75, 0), (0.9, 0.5, 9)])
def test_it_is_timms_average_to_the_last_bit(decay, power, update_after_step):
    model_ema = pytest.importorskip("timm.utils.model_ema")
    module, generator = module_with_buffers(), torch.Generator().manual_seed(1)
    average = WeightAverage(module, decay, power, update_after_step)
    theirs = model_ema.ModelEmaV3(
        module, decay=decay, use_warmup=True, warmup_gamma=1.0, warmup_power=power, update_after_step=update_after_step
    )
    for step in range(1, 25):
        change(module, generator)
        average.update(step)
        theirs.update(module, step=step)
        expected = theirs.module.state_dict()
        for name, value in average.module.state_dict().items():
            assert torch.equal(value, expected[name]), (step, name)


def test_it_equals_the_weights_until_averaging_begins():
    module, generator = module_with_buffers(), torch.Generator().manual_seed(1)
    average = WeightAverage(module, 0.9, 0.75, update_after_step=3)
    for step in range(1, 7):
        change(module, generator)
        average.update(step)
        same = all(map(torch.equal, average.module.parameters(), module.parameters()))
        assert same == (step <= 4)
    for averaged, weights in zip(average.module.parameters(), module.parameters(), strict=True):
        assert averaged.data_ptr() != weights.data_ptr()
    assert (module.training, average.module.training) == (True, False)


def test_weights_that_are_loaded_are_averaged_too():
    module = module_with_buffers()
    average = WeightAverage(module, 0.9, 0.75, update_after_step=0)
    module.load_state_dict({name: value + 1 for name, value in module.state_dict().items()})
    average.module.load_state_dict({name: value - 1 for name, value in average.module.state_dict().items()})
    before, current = average.module[0].weight.clone(), module[0].weight
    average.update(2)
    decay = 1 - 2**-0.75
    torch.testing.assert_close(average.module[0].weight, decay * before + (1 - decay) * current)
