from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nfpi.benchmark import convolutions
from nfpi.benchmark.convolutions import record_convolutions
from nfpi.flows import MatrixExponentialFlow
from nfpi.model import compilation


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
    hooks = sum(len(module._forward_pre_hooks) for module in flow.modules())
    assert hooks == 0


def test_every_use_of_a_flow_and_its_training_step_have_a_line(monkeypatch):
    monkeypatch.setattr(convolutions, "build_paper_flow", lambda: MatrixExponentialFlow((3, 32, 32), [1], [1], [4]))
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    monkeypatch.setattr(compilation, "require_compiler", lambda purpose, device: None)
    steps = list(convolutions.measure_training_step(torch.device("cpu"), 1, batch=2))
    assert [line.reference for line in steps] == ["its coupling nets alone", "their bare convolutions"]
    uncompiled = ["evaluate", "statistics of latents", "predict", "sample"]
    assert uses_measured() == [*uncompiled, "predict, compiled", "sample, compiled"]

    def fail(purpose, device):
        raise ValueError("compile: expected a C++ compiler")

    monkeypatch.setattr(compilation, "require_compiler", fail)
    assert uses_measured() == uncompiled


def uses_measured() -> list[str]:
    """Name what `measure_inference` measures of a small flow."""
    lines = convolutions.measure_inference(torch.device("cpu"), 1, batch=10)
    return [line.name.partition(", paper")[0] for line in lines]
