"""Submission of jobs while SLURM's controller does not answer, and jobs that end meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import nfpi.workflow.internals
from nfpi.runtime.files import write_atomically
from nfpi.workflow.internals import _wrap_cancellation, _wrap_error, _wrap_jobs, _wrap_submission


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


@pytest.mark.parametrize("before", ["", "that of an earlier job"])
@pytest.mark.parametrize("is_complete", [False, True])
def test_a_job_that_has_written_its_manifest_has_not_failed(tmp_path: Path, before: str, is_complete: bool) -> None:
    manifest = tmp_path / "model.manifest.json"
    if before:
        manifest.write_text(before)
    job = SimpleNamespace(job=Job(output=SimpleNamespace(manifest=manifest)), external_jobid="7")
    reported = list[str]()
    executor = SimpleNamespace(
        logger=SimpleNamespace(warning=lambda text: None), report_job_success=lambda _: reported.append("success")
    )
    _wrap_jobs(lambda _, jobs: None)(executor, [job.job])
    if is_complete:
        write_atomically(manifest, before)
    _wrap_error(lambda *_, **__: reported.append("error"))(executor, job, msg="TIMEOUT")
    assert reported == ["success" if is_complete else "error"]


class Job(SimpleNamespace):
    """A job of Snakemake, which is compared by identity."""

    __hash__ = object.__hash__
