"""Submission of jobs while SLURM's controller does not answer."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

import nfpi.workflow.internals
from nfpi.workflow.internals import _wrap_cancellation, _wrap_submission


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs that were submitted, in a process that has not been cancelled."""
    monkeypatch.setattr(nfpi.workflow.internals, "_cancelled", threading.Event())
    return []


def test_jobs_are_submitted_once_the_controller_answers(submitted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    answers, warnings = iter([False, False, True]), list[str]()
    monkeypatch.setattr(nfpi.workflow.internals, "controller_answers", lambda: next(answers))
    monkeypatch.setattr(nfpi.workflow.internals, "_PING_SECONDS", 0.01)
    executor = SimpleNamespace(logger=SimpleNamespace(warning=warnings.append))
    _wrap_submission(lambda _, job: submitted.append(job))(executor, "a job")
    assert submitted == ["a job"]
    assert len(warnings) == 1


def test_nothing_is_submitted_after_a_cancellation(submitted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfpi.workflow.internals, "controller_answers", lambda: True)
    cancelled = list[Any]()
    _wrap_cancellation(cancelled.append)("executor")
    _wrap_submission(lambda _, job: submitted.append(job))(SimpleNamespace(), "a job")
    assert (submitted, cancelled) == ([], ["executor"])
