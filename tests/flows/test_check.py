"""A backbone with wrong shapes, inverse or log-determinants is reported in one line."""

import pytest
import torch
from torch import nn

from nfpi.config.base import Settings
from nfpi.flows import FlowError, ImageFlow, check_flow

SHAPE = (1, 2, 3)


class _Doubling(ImageFlow):
    """z = s x with a learned s."""

    def __init__(self):
        super().__init__(SHAPE, Settings())
        self.log_scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return x * self.log_scale.exp(), (6 * self.log_scale).expand(len(x))

    def inverse(self, z):
        return z * (-self.log_scale).exp(), (-6 * self.log_scale).expand(len(z))


class _Detached(_Doubling):
    def forward(self, x):
        return super().forward(x.detach())


class _Breach(_Doubling):
    """With functions that change what forward and inverse return."""

    def __init__(self, change_forward=None, change_inverse=None):
        super().__init__()
        self.change_forward, self.change_inverse = change_forward, change_inverse

    def forward(self, x):
        found = super().forward(x)
        return self.change_forward(*found) if self.change_forward else found

    def inverse(self, z):
        found = super().inverse(z)
        return self.change_inverse(*found) if self.change_inverse else found


def _one_wrong(y, log_abs_det):
    return y, log_abs_det * torch.tensor([1, 1, -1, 1, 1])


def _of_one_pixel(y, log_abs_det):
    return y, log_abs_det / 6


BREACHES = [
    (lambda z, log_abs_det: (z, log_abs_det[:, None]), None, r"shape \(5,\), received \(5, 1\)"),
    (lambda z, log_abs_det: (z.flatten(1), log_abs_det), None, r"shape \(5, 1, 2, 3\), received \(5, 6\)"),
    (lambda z, log_abs_det: z, None, "Tensor"),
    (lambda z, log_abs_det: (z / 0, log_abs_det), None, "finite"),
    (lambda z, log_abs_det: (z.detach(), log_abs_det), None, "differentiable"),
    (None, lambda x, log_abs_det: (x + 0.1, log_abs_det), r"0\.1"),
    (None, lambda x, log_abs_det: (x, -log_abs_det), "4.2 from forward and 4.2 from inverse.*image 0"),
    (None, _one_wrong, "4.2 from forward and 4.2 from inverse.*image 2"),
    (_one_wrong, _one_wrong, r"-4\.2 "),
    (_of_one_pixel, _of_one_pixel, r"0\.7"),
]


def _images(dtype=torch.float32):
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("forward", "inverse", "message"), BREACHES)
def test_breach_is_one_line(forward, inverse, message, dtype):
    with pytest.raises(FlowError, match=message) as caught:
        check_flow(_Breach(forward, inverse).to(dtype), _images(dtype))
    assert str(caught.value).startswith("_Breach: ")
    assert "\n" not in str(caught.value)


def test_latents_that_do_not_depend_on_the_images_are_refused():
    with pytest.raises(FlowError, match=r"_Detached: .*differentiable"):
        check_flow(_Detached(), _images())


@pytest.mark.parametrize("training", [False, True])
def test_flow_is_left_as_it_was(training):
    flow = _Doubling().train(training)
    check_flow(flow, _images())
    assert flow.training == training
    assert flow.log_scale.grad is None
    assert flow.log_scale.requires_grad


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="images"):
        check_flow(_Doubling(), torch.zeros(2, 1, 3, 2))
