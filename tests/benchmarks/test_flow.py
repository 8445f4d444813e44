from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from flow import apply_action, multiply_by_exponential, record_convolutions

from nfpi.flows import MatrixExponentialFlow


@pytest.mark.parametrize("coupling", ["matrix_exponential", "affine"])
def test_the_bare_convolutions_are_those_of_the_flow(coupling):
    flow = MatrixExponentialFlow((1, 8, 8), [2, 1], [3, 1], [8, 6], coupling)
    x = 2 * torch.rand(4, 1, 8, 8) - 1
    flow.initialize(x)
    inputs, recorded = record_convolutions(flow, x)
    couplings = [level_flow.coupling for level in flow.levels for level_flow in level]
    expected: list[tuple[torch.Size, torch.Size]] = []
    conv2d = F.conv2d

    def note(image, weight, bias=None, stride=1, padding=0, *_):
        expected.append((image.shape, weight.shape))
        return conv2d(image, weight, bias, padding=padding)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "conv2d", note)
        patch.setattr(torch.nn.Conv2d, "forward", lambda self, image: note(image, self.weight, self.bias, 1, 1))
        for coupled, kept in zip(couplings, inputs, strict=True):
            coupled.net(kept)
    assert len(expected) == 2 * (2 + 3 * 3) + (2 + 3 * 1)  # the first, three a block, and the last one
    assert [kept.shape for kept in inputs] == [(4, 2, 4, 4), (4, 2, 4, 4), (4, 4, 2, 2)]
    assert [(image.shape, weight.shape) for image, weight, _, _ in recorded] == expected
    for image, weight, bias, padding in recorded:
        out = conv2d(image, weight, bias, padding=padding)
        assert out.shape[2:] == image.shape[2:]
        out.sum().backward()
        assert all(tensor.grad is not None for tensor in (image, weight, bias))
    assert all(parameter.grad is None for parameter in flow.parameters())  # they are copies


def test_the_action_and_the_explicit_exponential_have_the_same_gradients():
    field = ((2 * torch.rand(2, 6, 6, 5) - 1) / 6).double().requires_grad_()
    vector, upstream = torch.randn(2, 6, 5).double().requires_grad_(), torch.randn(2, 6, 5).double()
    matrices = field.detach().permute(0, 3, 2, 1).flatten(0, 1).requires_grad_()
    columns = vector.detach().permute(0, 2, 1).reshape(-1, 6, 1).requires_grad_()
    of_field, of_vector = apply_action(field, vector, upstream)
    of_matrices, of_columns = multiply_by_exponential(
        matrices, columns, upstream.permute(0, 2, 1).reshape(-1, 6, 1).contiguous()
    )
    torch.testing.assert_close(of_matrices, of_field.permute(0, 3, 2, 1).flatten(0, 1))
    torch.testing.assert_close(of_columns, of_vector.permute(0, 2, 1).reshape(-1, 6, 1))
