"""conda takes a CUDA build of torch for a cluster."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import nfpi.workflow.conda
from nfpi.workflow.conda import CUDA_VERSION, OVERRIDE_VARIABLE, request_cuda_build

from .conftest import ROOT


@pytest.fixture(autouse=True)
def no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(OVERRIDE_VARIABLE, "")
    monkeypatch.delenv(OVERRIDE_VARIABLE)
    monkeypatch.setattr(nfpi.workflow.conda, "_DRIVER", tmp_path / "driver")


def test_a_login_node_without_a_driver_gets_a_cuda_build(monkeypatch: pytest.MonkeyPatch) -> None:
    request_cuda_build()
    assert os.environ[OVERRIDE_VARIABLE] == CUDA_VERSION
    monkeypatch.setenv(OVERRIDE_VARIABLE, "13.0")
    request_cuda_build()
    assert os.environ[OVERRIDE_VARIABLE] == "13.0"


def test_a_driver_speaks_for_itself(tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    request_cuda_build()
    assert OVERRIDE_VARIABLE not in os.environ


def test_what_is_written_by_hand_is_the_same() -> None:
    assert f"{OVERRIDE_VARIABLE}={CUDA_VERSION}" in (ROOT / "environment.yml").read_text()
