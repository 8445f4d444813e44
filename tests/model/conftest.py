"""Small models, fitted in a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

from nfpi import ClassConditionalFlow
from nfpi.data import ImageSet

SMALL = {"num_flows": [2, 1], "num_blocks": [1, 1], "hidden_channels": [8, 8]}


@contextmanager
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def _meta_device() -> Iterator[None]:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "float64": _double_precision,
    "another device": _meta_device,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
}
"""States of torch that a caller may leave, as contexts."""


@pytest.fixture(params=list(STATES))
def state_of_caller(request: pytest.FixtureRequest) -> AbstractContextManager[object]:
    """Context in which torch is in a state that a caller left."""
    return STATES[request.param]()


@pytest.fixture(scope="session")
def images(make_images: Callable[..., ImageSet]) -> ImageSet:
    """Sixty grey images of three classes."""
    return make_images()


@pytest.fixture(scope="session")
def held_out(make_images: Callable[..., ImageSet]) -> ImageSet:
    """Sixty further images of these classes."""
    return make_images(seed=1)


@pytest.fixture(scope="session")
def fitted(images: ImageSet) -> ClassConditionalFlow:
    """A flow of the grey images; no test changes it."""
    return ClassConditionalFlow.fit(
        images.images, images.labels, flow=SMALL, epochs=12, weight=100, classes=images.classes, progress=False
    )
