"""Small models, fitted in a second."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nfpi import ClassConditionalFlow
from nfpi.data import ImageSet

SMALL = {"num_flows": [2, 1], "num_blocks": [1, 1], "hidden_channels": [8, 8]}


@pytest.fixture(scope="session")
def images(make_images: Callable[..., ImageSet]) -> ImageSet:
    """Sixty grey images of three classes."""
    return make_images()


@pytest.fixture(scope="session")
def fitted(images: ImageSet) -> ClassConditionalFlow:
    """A flow of the grey images; no test changes it."""
    return ClassConditionalFlow.fit(
        images.images, images.labels, flow=SMALL, epochs=12, weight=100, classes=images.classes, progress=False
    )
