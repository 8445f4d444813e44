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


class _Column(_Doubling):
    def forward(self, x):
        z, log_abs_det = super().forward(x)
        return z, log_abs_det[:, None]


class _Vectors(_Doubling):
    def forward(self, x):
        z, log_abs_det = super().forward(x)
        return z.flatten(1), log_abs_det


class _LatentsOnly(_Doubling):
    def forward(self, x):
        return super().forward(x)[0]


class _NotFinite(_Doubling):
    def forward(self, x):
        z, log_abs_det = super().forward(x)
        return z / 0, log_abs_det


class _AnotherInverse(_Doubling):
    def inverse(self, z):
        x, log_abs_det = super().inverse(z)
        return x + 0.1, log_abs_det


class _SameSign(_Doubling):
    def inverse(self, z):
        x, log_abs_det = super().inverse(z)
        return x, -log_abs_det


class _OneWrongSign(_Doubling):
    def inverse(self, z):
        x, log_abs_det = super().inverse(z)
        return x, log_abs_det * torch.tensor([1, 1, -1, 1, 1])


class _OneWrong(_OneWrongSign):
    def forward(self, x):
        z, log_abs_det = super().forward(x)
        return z, log_abs_det * torch.tensor([1, 1, -1, 1, 1])


class _WithoutGradient(_Doubling):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class _Detached(_Doubling):
    def forward(self, x):
        return super().forward(x.detach())


class _OfOnePixel(_Doubling):
    def forward(self, x):
        z, log_abs_det = super().forward(x)
        return z, log_abs_det / 6

    def inverse(self, z):
        x, log_abs_det = super().inverse(z)
        return x, log_abs_det / 6


BREACHES = {
    _Column: r"log-determinants of shape \(5,\), received \(5, 1\)",
    _Vectors: r"of shape \(5, 1, 2, 3\), received \(5, 6\)",
    _LatentsOnly: "Tensor",
    _NotFinite: "expected forward to return finite",
    _AnotherInverse: r"images that differ by up to 0\.1",
    _SameSign: "4.2 from forward and 4.2 from inverse for image 0",
    _OneWrongSign: "received 4.2 from forward and 4.2 from inverse for image 2 ",
    _OneWrong: r"-4\.2 ",
    _WithoutGradient: "expected forward to be differentiable with respect to the images: element 0 of tensors",
    _Detached: "expected forward to be differentiable with respect to the images: .*appears to not have been used",
    _OfOnePixel: r"0\.7",
}


def _images(dtype=torch.float32):
    return torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype) * 2 - 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("breach", BREACHES)
def test_breach_is_one_line(breach, dtype):
    with pytest.raises(FlowError, match=BREACHES[breach]) as caught:
        check_flow(breach().to(dtype), _images(dtype))
    assert str(caught.value).startswith(f"{breach.__name__}: ")
    assert "\n" not in str(caught.value)


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
