"""All questions on a CPU, and the command."""

from __future__ import annotations

import json

import pytest

from nfpi.checks.questions import Line, answer, answer_questions
from nfpi.cli import main
from nfpi.config.base import ConfigError
from nfpi.runtime.signals import Interrupted

from .conftest import ROOT, TINY, only_table


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NFPI_DEVICE", "cpu")


def test_on_a_cpu_nothing_fails(resolve_demo):
    row = {"dataset": "digits", "lambdas": [1000], "classifier": "resnet18"}
    lines = list(answer_questions(resolve_demo(**only_table(["nf_acc", "cnn_acc"], row))))
    assert [line for line in lines if line.verdict == "FAILED"] == []
    answered = {line.check for line in lines if line.verdict == "ok"}
    assert answered == {"device", "data", "step", "hours"}
    assert all("\n" not in line.text for line in lines)


@pytest.mark.parametrize("settings", [{}, {"cluster": {}, "resources": {"train_flow": {"gpu": 1}}}])
def test_an_allocated_gpu_that_torch_cannot_use_fails_and_ends_the_list(resolve_demo, monkeypatch, settings):
    monkeypatch.delenv("NFPI_DEVICE")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    (line,) = answer_questions(resolve_demo(**settings))
    assert (line.check, line.verdict) == ("device", "FAILED")


def test_an_error_of_a_check_is_its_line_and_the_others_go_on(make_subject):
    def does_it_work(subject):
        raise RuntimeError("out\nof order")
        yield

    assert list(answer(does_it_work, make_subject())) == [Line("does it work", "FAILED", "RuntimeError: out of order")]


def test_a_signal_ends_the_list(make_subject):
    def does_it_work(subject):
        raise Interrupted("stopped")
        yield

    with pytest.raises(Interrupted):
        list(answer(does_it_work, make_subject()))


def test_a_preset_without_a_flow_is_refused(resolve_demo):
    row = {"dataset": "digits", "prior": None, "classifier": "eva02_pretrained", "augmentation": "none"}
    with pytest.raises(ConfigError, match="flow"):
        list(answer_questions(resolve_demo(**only_table(["top1"], row))))


@pytest.mark.parametrize(("verdict", "status"), [("ok", 0), ("slow", 0), ("missing", 0), ("FAILED", 1)])
def test_only_what_failed_sets_the_status(monkeypatch, capsys, verdict, status):
    lines = [Line("one", "ok", "1"), Line("two", verdict, "[2] of λ")]
    monkeypatch.setattr("nfpi.checks.questions.answer_questions", lambda *_: iter(lines))
    assert main(["check-device", "--config", json.dumps(TINY)]) == status
    captured = capsys.readouterr()
    assert "[2] of λ" in captured.out
    assert ("two" in captured.err) == bool(status)


def test_the_settings_are_found_from_anywhere(monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr("nfpi.checks.questions.answer_questions", lambda one, *_: found.append(one) or iter(()))
    monkeypatch.chdir(tmp_path)
    assert main(["check-device", "--preset", "paper"]) == 0
    assert main(["check-device", "--config-file", str(ROOT / "config.yaml"), "--config", '{"preset": "paper"}']) == 0
    assert [one.preset for one in found] == ["paper", "paper"]
