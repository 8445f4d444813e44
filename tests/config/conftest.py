"""A small project: a config.yaml and a folder of presets."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nfpi.config.extensions import _loaded
from nfpi.config.registry import REGISTRIES
from nfpi.config.resolution import Resolved, resolve
from nfpi.config.settings import Config

BASE: dict[str, Any] = {
    "preset": "small",
    "results": "out",
    "datasets": {"digits": {"source": "digits", "flip": False}, "other": {}},
    "flows": {"mef": {}, "glow": {"kind": "glow"}},
    "training": {"epochs": 100, "batch_size": 64},
    "classifiers": {"resnet18": {}, "swin": {"model": "swin", "train_on": "real"}},
    "priors": {
        "fpi": {},
        "nfgd": {"method": "gradient_descent"},
        "repeated": {"method": "repeated_fixed_point"},
        "mean_only": {"start": "identity", "fit_variance": False},
    },
}
PRESETS: dict[str, Any] = {
    "small": {
        "training": {"epochs": 10},
        "tables": {"table2": {"experiments": [{"dataset": "digits", "lambdas": [0, "1e3"]}]}},
    },
    "large": {"seeds": [1, 2]},
}


@dataclass(frozen=True)
class Project:
    """Files below a folder."""

    folder: Path

    def write(self, file: str, content: Any) -> Path:
        """Write settings or a text to a file."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True))
        return path

    def resolve(
        self,
        overrides: Mapping[str, Any] | None = None,
        *,
        presets: Mapping[str, Any] | None = None,
        **groups: Any,
    ) -> Resolved:
        """Resolve the settings, with some groups of config.yaml and some presets replaced as a whole."""
        config = self.write("config.yaml", copy.deepcopy(BASE) | groups)
        for name, content in (PRESETS | dict(presets or {})).items():
            self.write(f"presets/{name}.yaml", content)
        return resolve(config, self.folder / "presets", overrides)

    def resolve_config(self, overrides: Mapping[str, Any] | None = None, **changes: Any) -> Config:
        """Resolve the settings, and return those of the call."""
        return self.resolve(overrides, **changes).config


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in a folder of its own."""
    return Project(tmp_path)


@pytest.fixture(autouse=True)
def registries() -> Iterator[None]:
    """Remove what a test registers when it ends."""
    known = [{name: registry[name] for name in registry} for registry in REGISTRIES]
    yield
    for registry, variants in zip(REGISTRIES, known, strict=True):
        registry._variants = variants
    _loaded.clear()
