"""The interface of a backbone: a bijection between images and latents of the same shape, built from settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nfpi.config.base import Settings
from nfpi.flows.bijection import Bijection


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
