"""Matrix functions of flows and priors: the exponential, its action on vectors, powers, the geometric mean.

A field of matrices holds one small matrix per pixel, column by column: `field[b, j, i, p]` is S_ij at pixel p of image
b. The pixels come last, (B, C, C, P), so that each product runs over contiguous memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_SQUARINGS = 8
_TAYLOR_DEGREE = 9
_LARGEST_NORM = 1e4


def precise_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on devices without it (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def precise_device(device: torch.device) -> torch.device:
    """Return a device that has float64: the given one, or the CPU for MPS."""
    return torch.device("cpu") if device.type == "mps" else device


def has_launch_overhead(device: torch.device) -> bool:
    """Return whether launching an operation is costly on a device (not on a CPU), so that few large ones are faster."""
    return device.type != "cpu"


def is_symmetric(matrices: Tensor, tolerance: float) -> bool:
    """Return whether matrices, (…, C, C), are symmetric up to `tolerance` times their largest absolute value."""
    return float((matrices - matrices.mT).abs().max()) <= tolerance * float(matrices.abs().max())


def matrix_exponential(matrix: Tensor) -> Tensor:
    """Compute e^A as the Taylor series of e^{A/2⁸}, squared eight times; no control flow depends on data.

    The relative error is at most about 5e-14 for ‖A‖ ≤ 16 and 8e-9 for ‖A‖ = 100. The arithmetic is float64 where the
    device has it, because the matrix is small and its error enters every pixel.

    Args:
        matrix: (C, C), or (n, C, C) for several matrices, computed together by as many operations as one. On a CPU,
            where operations cost little to launch, they are computed one by one, bit for bit like a single matrix.

    Returns:
        The exponentials, of the same shape and dtype.
    """
    precise = matrix.to(precise_dtype(matrix.device))
    if matrix.dim() == 2:
        return _scale_and_square(precise, torch.mm, torch.addmm).to(matrix.dtype)
    if not has_launch_overhead(matrix.device):
        return torch.stack([_scale_and_square(one, torch.mm, torch.addmm).to(matrix.dtype) for one in precise])
    exponential: Tensor = _BatchedExponential.apply(precise)
    return exponential.to(matrix.dtype)


def _scale_and_square(
    matrix: Tensor, multiply: Callable[..., Tensor], multiply_and_add: Callable[..., Tensor]
) -> Tensor:
    """Compute e^A with mm and addmm for (C, C), or with bmm and baddbmm for (n, C, C)."""
    scaled = matrix / 2**_SQUARINGS
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    series = identity.expand_as(scaled)
    for degree in range(_TAYLOR_DEGREE, 0, -1):
        series = multiply_and_add(identity, scaled, series, alpha=1 / degree)
    for _ in range(_SQUARINGS):
        series = multiply(series, series)
    return series


class _BatchedExponential(torch.autograd.Function):
    """e^A for (n, C, C); if G is the gradient of e^A, that of A is the upper right block of exp [[Aᵀ, G], [0, Aᵀ]].

    One further exponential replaces a backward step for each product.
    """

    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        ctx.save_for_backward(matrices)
        return _scale_and_square(matrices, torch.bmm, torch.baddbmm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (matrices,) = ctx.saved_tensors
        size = matrices.shape[-1]
        upper = torch.cat([matrices.mT, gradient], 2)
        blocks = torch.cat([upper, torch.nn.functional.pad(matrices.mT, (size, 0))], 1)
        return _scale_and_square(blocks, torch.bmm, torch.baddbmm)[:, :size, size:]


def taylor_plan(norm: float, tolerance: float) -> tuple[int, int]:
    """Choose the number of terms m and of steps s of e^S x ≈ (T_m(S/s))^s x within `tolerance`, for ‖S‖ ≤ `norm`.

    The remainder of T_m is at most θ^{m+1}/(m+1)! · 1/(1 − θ/(m+2)) with θ = norm/s. There are enough steps that θ ≤ 2,
    where the terms hardly cancel.

    Raises:
        FloatingPointError: the norm is not finite, or at least 10⁴.
    """
    if not norm < _LARGEST_NORM:
        raise FloatingPointError(f"matrix exponential: expected a norm below {_LARGEST_NORM:g}, received {norm:g}")
    steps = max(1, math.ceil(norm / 2))
    theta = norm / steps
    terms, remainder = 1, theta**2 / 2
    while remainder / (1 - theta / (terms + 2)) > tolerance / steps:
        terms += 1
        remainder *= theta / (terms + 1)
    return terms, steps


def series_plan(norm: float, dtype: torch.dtype) -> tuple[int, int]:
    """Return the terms and steps (:func:`taylor_plan`) at which :func:`exponential_action` is as precise as a dtype."""
    return taylor_plan(norm, torch.finfo(dtype).eps / 4)


def truncation_error(norm: float, terms: int, steps: int) -> float:
    """Bound the error of (T_m(S/s))^s x relative to ‖x‖ by s θ^{m+1}/(m+1)! · 1/(1 − θ/(m+2)), θ = ‖S‖/s.

    The factor by which e^S may enlarge the errors of the first steps is left out. For θ ≥ m + 2 the bound is
    infinite.
    """
    theta = norm / steps
    if not theta < terms + 2:
        return math.inf
    return steps * theta ** (terms + 1) / math.factorial(terms + 1) / (1 - theta / (terms + 2))


class _TaylorAction(torch.autograd.Function):
    """T_m(S) x by Horner's rule: v_m = x, v_{k−1} = x + S v_k / k, and v_0 is the result.

    Backward, with g_0 the gradient of the result: g_k = Sᵀ g_{k−1} / k, ∂x = Σ_k g_k, ∂S = Σ_k g_{k−1} v_kᵀ / k. Only
    the m vectors v_k are saved, and no product of matrices is formed.
    """

    @staticmethod
    def forward(ctx: Any, field: Tensor, vector: Tensor, terms: int) -> Tensor:
        partial = [vector]
        product = torch.empty_like(field)
        for degree in range(terms, 0, -1):
            torch.mul(field, partial[-1].unsqueeze(2), out=product)
            partial.append(torch.add(vector, product.sum(1), alpha=1 / degree))
        ctx.save_for_backward(field, *partial[:-1])
        return partial[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        field, *partial = ctx.saved_tensors  # v_m, …, v_1
        field_gradient = torch.zeros_like(field) if ctx.needs_input_grad[0] else None
        product = torch.empty_like(field)
        total = gradient.clone()
        for degree in range(1, len(partial) + 1):
            scaled = gradient / degree
            if field_gradient is not None:
                field_gradient.addcmul_(partial[-degree].unsqueeze(2), scaled.unsqueeze(1))
            torch.mul(field, scaled.unsqueeze(1), out=product)
            gradient = product.sum(2)
            total += gradient
        return field_gradient, total, None


class _BatchedTaylorAction(_TaylorAction):
    """T_m(S) x with fewer and larger operations, for devices where launches are costly.

    Forward, v_{k−1} = Σ_j (x / C + S_·j v_kj / k) is one elementwise operation and one sum over the C columns of S.
    Backward, with h_k = k! g_k: h_k = Sᵀ h_{k−1}, ∂x = Σ_k h_k / k!, and ∂S = Σ_k (h_{k−1} / (k−1)!) (v_k / k)ᵀ; each
    sum is one operation. The sum for ∂S temporarily takes m times the memory of S.
    """

    @staticmethod
    def forward(ctx: Any, field: Tensor, vector: Tensor, terms: int) -> Tensor:
        partial = [vector]
        share = vector.unsqueeze(1) / field.shape[1]
        product = torch.empty_like(field)
        for degree in range(terms, 0, -1):
            torch.addcmul(share, field, partial[-1].unsqueeze(2), value=1 / degree, out=product)
            partial.append(product.sum(1))
        ctx.save_for_backward(field, *partial[:-1])
        return partial[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        field, *partial = ctx.saved_tensors  # v_m, …, v_1
        powers = [gradient]
        for _ in partial:
            powers.append((field * powers[-1].unsqueeze(1)).sum(2))
        # divided by Python numbers: a tensor of them would have to be copied from the host to the device
        scaled_powers = torch.stack(torch._foreach_div(powers, [float(math.factorial(k)) for k in range(len(powers))]))
        vector_gradient = scaled_powers.sum(0)
        if not ctx.needs_input_grad[0]:
            return None, vector_gradient, None
        scaled_vectors = torch.stack(torch._foreach_div(partial[::-1], [float(k) for k in range(1, len(powers))]))
        return (scaled_vectors.unsqueeze(3) * scaled_powers[:-1].unsqueeze(2)).sum(0), vector_gradient, None


def exponential_action(field: Tensor, vector: Tensor, norm: float) -> Tensor:
    """Compute e^S x at every pixel, using only products of a matrix and a vector.

    Args:
        field: (B, C, C, P), S column by column.
        vector: (B, C, P), x.
        norm: upper bound of ‖S‖₁ or ‖S‖_∞ over the field; it determines the length of the series.

    Returns:
        (B, C, P).
    """
    terms, steps = series_plan(norm, vector.dtype)
    if steps > 1:
        field = field / steps
    action = _BatchedTaylorAction if has_launch_overhead(field.device) else _TaylorAction
    for _ in range(steps):
        vector = action.apply(field, vector, terms)
    return vector


def phi_action(field: Tensor, vector: Tensor, norm: float) -> Tensor:
    """Compute φ(M) v with φ(M) = Σ_k M^k / (k+1)!, so that e^M = I + M φ(M).

    The exponential of [[M, v], [0, 0]] has the last column (φ(M) v, 1). As φ(M) v is linear in v, the length of the
    series may follow from the norm of this matrix for ‖v‖ = 1, which is at most ‖M‖ + 1.

    Args:
        field: (B, k, k, P), M column by column.
        vector: (B, k, P), v.
        norm: upper bound of ‖M‖.

    Returns:
        (B, k, P).
    """
    batch, rank, pixels = vector.shape
    columns = torch.cat([field, vector.unsqueeze(1)], 1)
    augmented = torch.nn.functional.pad(columns, (0, 0, 0, 1))
    last = vector.new_zeros(batch, rank + 1, pixels)
    last[:, -1] = 1
    return exponential_action(augmented, last, norm + 1.0)[:, :-1]


def symmetric_power(matrix: Tensor, exponent: float) -> Tensor:
    """Compute A^p of symmetric positive definite matrices (…, D, D) from their eigenvalues.

    Raises:
        torch.linalg.LinAlgError: a matrix is not positive definite or not finite.
    """
    if not torch.isfinite(matrix).all():
        raise torch.linalg.LinAlgError("matrix power of a matrix that is not finite")
    eigenvalues, vectors = torch.linalg.eigh(matrix)
    if not (eigenvalues > 0).all():
        raise torch.linalg.LinAlgError(f"not positive definite: smallest eigenvalue {eigenvalues.min().item():.3g}")
    power: Tensor = (vectors * eigenvalues.pow(exponent).unsqueeze(-2)) @ vectors.mT
    return power


def geometric_mean(a: Tensor, b: Tensor) -> Tensor:
    """Compute A # B = A^{1/2} (A^{−1/2} B A^{−1/2})^{1/2} A^{1/2}, the solution X > 0 of X A⁻¹ X = B.

    Args:
        a, b: (…, D, D), symmetric positive definite.

    Returns:
        (…, D, D), exactly symmetric.

    Raises:
        torch.linalg.LinAlgError: a matrix is not positive definite.
    """
    root, inverse_root = symmetric_power(a, 0.5), symmetric_power(a, -0.5)
    inner = inverse_root @ b @ inverse_root
    mean = root @ symmetric_power((inner + inner.mT) / 2, 0.5) @ root
    return (mean + mean.mT) / 2
