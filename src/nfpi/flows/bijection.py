"""The interfaces of backbones and of their parts, and the initialisation of parameters."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from nfpi.config.base import Settings

_skipped = ContextVar("_skipped", default=False)


def device_of(flow: nn.Module) -> torch.device:
    """Return the device of a flow's weights; the CPU if it has no weights."""
    weight = next(flow.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


@contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """Put all parts of a module in evaluation mode; each returns to its own mode at the end. Others are left alone."""
    modes = [(part, part.training) for part in module.modules()] if isinstance(module, nn.Module) else []
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class Bijection(nn.Module, ABC):
    """An invertible map of images with the logarithm of its Jacobian determinant.

    For x of shape (B, C, H, W), `forward(x)` returns `(y, log_abs_det)` with log_abs_det = log |det ∂y/∂x| of shape
    (B,), or () if it is the same for every x; `inverse(y)` returns `(x, log_abs_det)` with the determinant of the
    inverse map, ∂x/∂y.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y = f(x) and log |det ∂y/∂x|."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x = f⁻¹(y) and log |det ∂x/∂y|."""

    @torch.no_grad()
    def initialize(self, x: Tensor) -> Tensor:
        """Initialise data-dependent parameters from a batch of images, and return f(x)."""
        z: Tensor = self(x)[0]
        return z


class ImageFlow(Bijection):
    """A flow f between images x and latents z, both of shape (B, C, H, W).

    A backbone is a subclass with `forward`, `inverse` and, where parameters depend on data, `initialize`. Config files
    select it by the name that :func:`nfpi.flows.registry.register_flow` gives it. Unlike those of its parts, its
    log-determinants always have shape (B,).

    Args:
        shape: (C, H, W) of the images.
        settings: settings of this kind of flow.

    Attributes:
        kind: name by which the kind of flow is registered.

    Raises:
        ValueError: the shape is not (C, H, W).
    """

    kind: str = ""

    def __init__(self, shape: Sequence[int], settings: Settings) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape: expected (C, H, W), received {tuple(shape)}")
        channels, height, width = shape
        self.shape = (channels, height, width)
        self.settings = settings

    @property
    def description(self) -> dict[str, Any]:
        """Kind, shape and settings in JSON types, from which :func:`nfpi.flows.registry.build_flow` builds the flow."""
        return {"kind": self.kind, "shape": list(self.shape), "settings": self.settings.model_dump(mode="json")}

    def check_images(self, x: Tensor) -> None:
        """Raise ValueError unless x has shape (B, C, H, W)."""
        if x.dim() != 4 or tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"expected images (B, {', '.join(map(str, self.shape))}), received {tuple(x.shape)}")

    def as_images(self, z: Tensor) -> Tensor:
        """Return latents, given as (B, C, H, W) or as vectors (B, D) with D = C·H·W, as (B, C, H, W).

        Raises:
            ValueError: z has another shape.
        """
        if z.dim() == 2 and z.shape[1] == math.prod(self.shape):
            return z.view(len(z), *self.shape)
        if z.dim() != 4 or tuple(z.shape[1:]) != self.shape:
            expected = f"(B, {math.prod(self.shape)}) or (B, {', '.join(map(str, self.shape))})"
            raise ValueError(f"expected latents {expected}, received {tuple(z.shape)}")
        return z


def forward_through(parts: Iterable[Bijection], x: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """Apply bijections in order.

    Args:
        parts: the bijections.
        x: input of the first one.
        log_abs_det: accumulated by the preceding bijections, (B,).

    Returns:
        Output of the last one, and the accumulated log-determinant, (B,).
    """
    for part in parts:
        x, change = part(x)
        log_abs_det = log_abs_det + change
    return x, log_abs_det


def inverse_through(parts: Sequence[Bijection], y: Tensor, log_abs_det: Tensor) -> tuple[Tensor, Tensor]:
    """Apply the inverses of bijections in reverse order; for the arguments see :func:`forward_through`."""
    for part in reversed(parts):
        y, change = part.inverse(y)
        log_abs_det = log_abs_det + change
    return y, log_abs_det


@torch.no_grad()
def initialize_through(parts: Iterable[Bijection], x: Tensor) -> Tensor:
    """Initialise bijections in order, each on the output of the previous one, and return the last output."""
    for part in parts:
        x = part.initialize(x)
    return x


@contextmanager
def skip_initialization() -> Iterator[None]:
    """Make modules built in this block leave their random parameters uninitialised."""
    token = _skipped.set(True)
    try:
        yield
    finally:
        _skipped.reset(token)


def is_initialization_skipped() -> bool:
    """Return whether this is called in a block of :func:`skip_initialization`."""
    return _skipped.get()
