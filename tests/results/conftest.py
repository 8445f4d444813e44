"""Collected metrics as runs would leave them, and the table rows of those runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nfpi.config.settings import Config
from nfpi.results.recorded.runs import COLLECTED_COLUMNS
from nfpi.results.tables.building import read_reference
from nfpi.results.tables.rows import TableRow, list_table_rows
from nfpi.runs import Run

PAPER = Path(__file__).parents[2] / "workflow" / "reference" / "paper.csv"
PRIORS: dict[str, Any] = {
    "fpi": {},
    "mean_only": {"fit_variance": False},
    "unit": {"start": "identity"},
    "gmm": {"method": "gradient_descent", "every": "step"},
}
CLASSIFIERS: dict[str, Any] = {
    "resnet18": {},
    "swin": {"model": "swin", "train_on": "real"},
    "eva02": {"model": "eva02", "train_on": "real"},
}
DATASETS = ("digits", "digits_8x8", "cifar10", "cifar100", "imagenet")

Measured = list[dict[str, Any]]


@pytest.fixture(scope="session")
def reference() -> pd.DataFrame:
    """The paper's numbers."""
    return read_reference(PAPER)


@pytest.fixture(scope="session")
def make_config() -> Callable[..., Config]:
    """Make settings with one table, `t`, of these experiments."""

    def make(*experiments: Mapping[str, Any], seeds: tuple[int, ...] = (0,), **table: Any) -> Config:
        return Config.model_validate(
            {
                "seeds": list(seeds),
                "datasets": {name: {} for name in DATASETS},
                "flows": {"mef": {}, "glow": {"kind": "glow"}},
                "priors": PRIORS,
                "classifiers": CLASSIFIERS,
                "tables": {"t": {"experiments": list(experiments), **table}},
            }
        )

    return make


@pytest.fixture(scope="session")
def make_rows(make_config: Callable[..., Config]) -> Callable[..., list[TableRow]]:
    """List the rows of a table of these experiments."""
    return lambda *experiments, seeds=(0,): list_table_rows(make_config(*experiments, seeds=seeds), "t")


@pytest.fixture(scope="session")
def make_metric_rows() -> Callable[..., Measured]:
    """Make the rows of one run in the collected table: its metrics, or its divergence."""

    def make(run: Run, status: str = "ok", **values: float) -> Measured:
        common = run.row() | {"n": 360, "status": status, "run": run.folder}
        shown = values if status == "ok" else {"": math.nan}
        return [common | {"metric": metric, "value": value} for metric, value in shown.items()]

    return make


@pytest.fixture(scope="session")
def make_frame() -> Callable[..., pd.DataFrame]:
    """Make the collected table of several runs."""
    return lambda *runs: pd.DataFrame([row for rows in runs for row in rows], columns=list(COLLECTED_COLUMNS)).astype(
        COLLECTED_COLUMNS
    )
