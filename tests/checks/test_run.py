"""The list of checks on a CPU, and the command."""

from __future__ import annotations

import json

import pytest

import nfpi.checks.run
from nfpi.checks.report import Line
from nfpi.checks.run import CHECKS, run_check, run_checks
from nfpi.cli import main
from nfpi.runtime.signals import Interrupted

from .conftest import ROOT, TINY


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NFPI_DEVICE", "cpu")


def test_on_a_cpu_nothing_fails(resolve_demo):
    lines = list(run_checks(resolve_demo(), "digits", "mef"))
    assert [line for line in lines if line.verdict == "FAILED"] == []
    assert {"device", "flow", "series", "checkpoint", "step", "speed", "hours", "loader"} <= {
        line.check for line in lines if line.verdict == "ok"
    }
    assert "random images" in next(line.text for line in lines if line.check == "data")
    assert next(line for line in lines if line.check == "host").verdict == "missing"
    assert {line.text.split(",")[0] for line in lines if line.check == "classifier"} == {
        *("resnet18", "swin", "eva02", "eva02_pretrained"),
    }
    assert all("\n" not in line.text for line in lines)


@pytest.mark.parametrize("settings", [{}, {"cluster": {}, "resources": {"train_flow": {"gpu": 1}}}])
def test_an_allocated_gpu_that_torch_cannot_use_fails_and_ends_the_list(resolve_demo, monkeypatch, settings):
    monkeypatch.delenv("NFPI_DEVICE")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    (line,) = run_checks(resolve_demo(**settings))
    assert (line.check, line.verdict) == ("device", "FAILED")
    assert "expected a GPU" in line.text


def test_a_promised_gpu_that_is_not_there_fails(resolve_demo, monkeypatch):
    monkeypatch.delenv("NFPI_DEVICE")
    monkeypatch.setattr(nfpi.checks.build, "count_visible_gpus", lambda: 0)
    (line,) = run_checks(resolve_demo(cluster={}, resources={"train_flow": {"gpu": 1}}))
    assert line.verdict == "FAILED"
    assert "asks the cluster for 1 GPU" in line.text


def test_an_error_of_a_check_is_its_line_and_the_others_go_on(make_subject, monkeypatch):
    def check_thing(make_subject):
        raise RuntimeError("out\nof order")
        yield

    assert list(run_check(check_thing, make_subject())) == [Line("thing", "FAILED", "RuntimeError: out of order")]


def test_a_signal_ends_the_list(make_subject):
    def check_thing(make_subject):
        raise Interrupted("stopped")
        yield

    with pytest.raises(Interrupted):
        list(run_check(check_thing, make_subject()))


def test_a_flow_that_the_preset_does_not_train_is_refused(resolve_demo):
    with pytest.raises(
        ValueError, match="expected a flow that its tables train, received nope on any data set; it has"
    ):
        list(run_checks(resolve_demo(), flow="nope"))


@pytest.mark.parametrize(("verdict", "status"), [("ok", 0), ("slow", 0), ("missing", 0), ("FAILED", 1)])
def test_only_what_failed_sets_the_status(monkeypatch, tmp_path, capsys, verdict, status):
    lines = [Line("one", "ok", "1"), Line("two", verdict, "[2] of λ")]
    monkeypatch.setattr("nfpi.checks.run.run_checks", lambda *_: iter(lines))
    file = tmp_path / "new/checks.json"
    assert main(["check-device", "--config", json.dumps(TINY), "--output", str(file)]) == status
    captured = capsys.readouterr()
    assert captured.out == f"ok      one: 1\n{verdict:8}two: [2] of λ\n"
    assert captured.err == ("" if not status else "nfpi: error: check-device: two FAILED; see the lines above\n")
    report = json.loads(file.read_text())
    assert (report["preset"], report["passed"]) == ("demo", not status)
    assert report["checks"][1] == {"check": "two", "verdict": verdict, "text": "[2] of λ"}


def test_the_settings_are_found_from_anywhere(monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr("nfpi.checks.run.run_checks", lambda resolved, *_: found.append(resolved) or iter(()))
    monkeypatch.chdir(tmp_path)
    assert main(["check-device", "--preset", "paper"]) == 0
    assert main(["check-device", "--config-file", str(ROOT / "config.yaml"), "--config", '{"preset": "paper"}']) == 0
    assert [one.preset for one in found] == ["paper", "paper"]


def test_each_check_has_its_own_name():
    assert len({check.__name__ for check in CHECKS}) == len(CHECKS)
