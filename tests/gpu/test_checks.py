"""What only a GPU shows. Skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nfpi.checks.build import check_build, check_float32, check_precision
from nfpi.checks.flow import check_bounds, check_flow_precision
from nfpi.checks.hours import check_passes
from nfpi.checks.processes import check_processes
from nfpi.checks.run import run_checks
from nfpi.checks.steps import check_checkpoint, check_memory, check_speed, check_synchronisations
from nfpi.checks.subject import Subject
from nfpi.checks.workloads import find_workloads
from nfpi.config import resolve
from nfpi.runtime.devices import make_device

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of CUDA")]


@pytest.fixture(scope="module", params=["demo", "paper"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The main flow of a preset, on random images."""
    results = {"preset": request.param, "results": str(tmp_path_factory.mktemp("results"))}
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", results)
    first = find_workloads(resolved)[0]
    return Subject(resolved.preset, resolved.config, [first], make_device().device)


@pytest.mark.parametrize(
    "check",
    [
        *(check_build, check_precision, check_float32, check_flow_precision, check_bounds, check_checkpoint),
        *(check_synchronisations, check_memory, check_speed, check_passes, check_processes),
    ],
    ids=lambda check: check.__name__,
)
def test_a_check_finds_nothing_that_fails(subject, check):
    assert [line for line in check(subject) if line.verdict == "FAILED"] == []


def test_the_host_does_not_wait_for_a_step(subject):
    (line,) = check_synchronisations(subject)
    assert line.verdict == "ok", line.text


def test_tf32_that_is_allowed_is_noticed(subject):
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this card has no TF32")
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        (line,) = check_float32(subject)
    finally:
        torch.backends.cudnn.allow_tf32 = before
    assert line.verdict == "FAILED"


def test_the_whole_list_of_the_demo(tmp_path):
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", {"results": str(tmp_path)})
    assert [line for line in run_checks(resolved) if line.verdict == "FAILED"] == []
