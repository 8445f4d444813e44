"""Statistics of latents of three classes, and a registry that each test leaves as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from nfpi.config.priors import PRIORS
from nfpi.priors import ClassStatistics


@pytest.fixture(autouse=True)
def only_built_in() -> Iterator[None]:
    before = dict(PRIORS._variants)
    yield
    PRIORS._variants = before


@pytest.fixture
def statistics() -> ClassStatistics:
    generator = torch.Generator().manual_seed(0)
    return ClassStatistics.from_latents(torch.randn(60, 4, generator=generator), torch.arange(60) % 3)
