"""Compare the coupling's exponential action with explicit matrix exponentials."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nfpi.benchmark.measurement import Measurement, compare_times, measure_medians
from nfpi.linalg import exponential_action


def measure_actions(device: torch.device, repeats: int) -> Iterator[Measurement]:
    """Time e^S x with its gradients, for the sizes of the paper's flow (batch 16)."""
    for channels, pixels in ((6, 256), (12, 64), (24, 16)):
        field = ((2 * torch.rand(16, channels, channels, pixels) - 1) / channels).to(device).requires_grad_()
        vector = torch.randn(16, channels, pixels, device=device, requires_grad=True)
        upstream = torch.randn_like(vector)
        matrices = field.detach().permute(0, 3, 2, 1).flatten(0, 1).contiguous().requires_grad_()
        columns = vector.detach().permute(0, 2, 1).reshape(-1, channels, 1).contiguous().requires_grad_()
        upstream_columns = upstream.permute(0, 2, 1).reshape(-1, channels, 1).contiguous()

        def apply_action(field: Tensor = field, vector: Tensor = vector, upstream: Tensor = upstream) -> None:
            torch.autograd.grad(exponential_action(field, vector, 1.0), (field, vector), upstream)

        def multiply_by_exponential(
            a: Tensor = matrices, x: Tensor = columns, upstream: Tensor = upstream_columns
        ) -> None:
            torch.autograd.grad(torch.linalg.matrix_exp(a) @ x, (a, x), upstream)

        fast, slow = measure_medians(device, repeats, apply_action, multiply_by_exponential)
        name = f"coupling action e^S x, forward and backward, C = {channels}"
        reference = "torch.linalg.matrix_exp and a product"
        yield compare_times(name, reference, fast, slow, "at least 8×", larger_is_better=True)
