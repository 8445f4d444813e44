"""What only a GPU shows. Skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nfpi.checks.batches import Subject
from nfpi.checks.questions import QUESTIONS, answer, answer_questions
from nfpi.config.resolution import resolve
from nfpi.runtime.device import make_device

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of CUDA")]


@pytest.fixture(scope="module", params=["demo", "paper"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The main flow of a preset, on random images."""
    results = {"preset": request.param, "results": str(tmp_path_factory.mktemp("results"))}
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", results)
    subject = Subject.find(resolved, make_device().device)
    subject.work = [next(work for work in subject.list_distinct() if work.label == "train_flow: mef")]
    return subject


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.__name__)
def test_an_answer_is_not_no(subject, question):
    assert [line for line in answer(question, subject) if line.verdict == "FAILED"] == []


def test_the_whole_list_of_the_demo(tmp_path):
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", {"results": str(tmp_path)})
    assert [line for line in answer_questions(resolved) if line.verdict == "FAILED"] == []
