"""The two latest states of a job: intact whenever the process is killed, damaged ones detected."""

from __future__ import annotations

import contextlib
import itertools
import logging
import multiprocessing
import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from nfpi.runtime import checkpoints as module
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.files import write_atomically, written_together

HEADER = {"log": [{"epoch": 1}], "λ": 0.1, "text": '"sha256":"' + "0" * 64}
FINGERPRINT, OTHER = "ab" * 32, "cd" * 32


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {
        "weight": torch.full((3, 4), float(step)).T,
        "moment": torch.tensor(step, dtype=torch.float64),
        "count": torch.arange(step),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }


def checkpoints_of(folder: Path, *steps: int, resume_key: str = FINGERPRINT) -> Checkpoints:
    checkpoints = Checkpoints(folder, resume_key)
    for step in steps:
        checkpoints.save(step, tensors(step), HEADER)
    return checkpoints


def step_found(folder: Path, resume_key: str = FINGERPRINT) -> int | None:
    """The step of the state that is found, which is compared with what was saved at that step."""
    loaded = Checkpoints(folder, resume_key).load()
    if loaded is None:
        return None
    found, header = loaded
    step = header["step"]
    assert header == {**HEADER, "step": step, "resume_key": resume_key}
    expected = tensors(step)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    return step


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_newest_state_comes_back_as_it_was(tmp_path):
    assert step_found(tmp_path / "run") is None
    assert not (tmp_path / "run").exists()
    checkpoints = checkpoints_of(tmp_path / "run", 3)
    assert step_found(tmp_path / "run") == 3
    checkpoints.save(7, tensors(7), HEADER)
    assert step_found(tmp_path / "run") == 7
    assert str(checkpoints) == f"step 7 in {checkpoints.path}"


def test_two_states_are_kept_and_all_are_cleared(tmp_path):
    checkpoints = checkpoints_of(tmp_path, *range(1, 6))
    assert len(names(tmp_path)) == 2
    checkpoints_of(tmp_path, 1, 2, resume_key=OTHER)
    checkpoints.clear()
    assert names(tmp_path) == set()
    assert str(checkpoints) == "none"


DAMAGES = {
    "truncated": lambda content: content[:-7],
    "emptied": lambda content: b"",
    "longer": lambda content: content + b"\0",
    "other text": lambda content: b"no checkpoint",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_passed_over_with_one_line(tmp_path, damage, caplog):
    checkpoints = checkpoints_of(tmp_path, 1, 2)
    checkpoints.path.write_bytes(DAMAGES[damage](checkpoints.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert step_found(tmp_path) == 1
    (record,) = caplog.records
    assert str(checkpoints.path) in record.getMessage()
    assert "damaged" in record.getMessage()
    # and the next state does not push the damaged one over the last whole one
    assert step_found(tmp_path) == 1


def test_any_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    checkpoints = checkpoints_of(tmp_path, 1)
    content = checkpoints.path.read_bytes()
    generator = random.Random(0)
    for place in generator.sample(range(len(content)), 60):
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        checkpoints.path.write_bytes(changed)
        assert Checkpoints(tmp_path, FINGERPRINT).load() is None, place


def test_nothing_whole_is_nothing(tmp_path, caplog):
    checkpoints = checkpoints_of(tmp_path, 1, 2)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert step_found(tmp_path) is None
    assert len(caplog.records) == 2
    checkpoints.save(3, tensors(3), HEADER)
    assert step_found(tmp_path) == 3


def test_a_state_of_another_version_is_removed_with_one_line(tmp_path, monkeypatch, caplog):
    """What its numbers mean may have changed."""
    monkeypatch.setattr(module, "__version__", "0")
    Checkpoints(tmp_path, FINGERPRINT).save(3, {"a": torch.ones(2)}, {})
    monkeypatch.undo()
    assert Checkpoints(tmp_path, FINGERPRINT).load() is None
    assert "of nfpi 0" in caplog.text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_state_of_another_processor_or_torch_is_resumed_with_a_warning(tmp_path, monkeypatch, caplog, elsewhere):
    monkeypatch.setattr(module, "describe_platform", lambda: "an abacus")
    Checkpoints(tmp_path, FINGERPRINT).save(3, {"a": torch.ones(2)}, {})
    if elsewhere:
        monkeypatch.undo()
    assert Checkpoints(tmp_path, FINGERPRINT).load()[1]["step"] == 3
    assert ("last bits may differ" in caplog.text) == elsewhere


def test_a_state_of_other_settings_is_neither_used_nor_replaced(tmp_path, caplog):
    checkpoints_of(tmp_path, 1, 2, resume_key=OTHER)
    assert step_found(tmp_path) is None
    assert "of other settings, not used" in caplog.text
    checkpoints_of(tmp_path, 5, 6)
    assert step_found(tmp_path, OTHER) == 2
    assert step_found(tmp_path) == 6


def test_what_is_not_finite_is_refused_and_the_state_before_stays(tmp_path):
    checkpoints = checkpoints_of(tmp_path, 1)
    with pytest.raises(FloatingPointError, match="weight"):
        checkpoints.save(2, {"weight": torch.tensor([1.0, float("nan")])}, {})
    assert step_found(tmp_path) == 1


def test_a_state_is_saved_at_once_also_where_other_files_wait(tmp_path):
    """Or else the latest state would be gone until the block ends."""
    with contextlib.suppress(KeyError), written_together():
        write_atomically(tmp_path / "result", "waits")
        checkpoints_of(tmp_path, 1, 2)
        assert step_found(tmp_path) == 2
        raise KeyError
    assert step_found(tmp_path) == 2
    assert len(names(tmp_path)) == 2


class Killed(BaseException):
    pass


def test_a_crash_at_any_moment_of_a_save_leaves_a_whole_state(tmp_path, monkeypatch):
    """The process goes before each of the calls that change the disk, in turn."""
    moments = itertools.count()
    left = iter([])

    def spied(function):
        def call(*arguments, **options):
            if next(left, None) is None:
                raise Killed
            return function(*arguments, **options)

        return call

    for moment in moments:
        folder = tmp_path / str(moment)
        checkpoints, left = checkpoints_of(folder, 1, 2), iter(range(moment))
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink", "open"):
                patch.setattr(Path, name, spied(getattr(Path, name)))
            patch.setattr(os, "fsync", spied(os.fsync))
            with contextlib.suppress(Killed):
                checkpoints.save(3, tensors(3), HEADER)
                break
        assert step_found(folder) in (2, 3)
    assert moment >= 4
    assert step_found(folder) == 3


def save_for_ever(folder: Path, reports: Connection) -> None:
    checkpoints = Checkpoints(folder, FINGERPRINT)
    found = checkpoints.load()
    for step in itertools.count(found[1]["step"] + 1 if found else 1):
        checkpoints.save(step, {"weight": torch.full((200_000,), float(step))}, {})
        reports.send(step)


def test_killed_while_it_saves_again_and_again(tmp_path):
    """SIGKILL at moments that are drawn; what is found is always whole, and never older than what was reported."""
    fork = multiprocessing.get_context("fork")
    generator, reported = random.Random(0), 0
    for _ in range(12):
        ours, theirs = fork.Pipe(duplex=False)
        process = fork.Process(target=save_for_ever, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        first = ours.recv()
        assert first <= reported + 2
        reported = first
        time.sleep(generator.uniform(0, 0.03))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                reported = ours.recv()
        found, header = Checkpoints(tmp_path, FINGERPRINT).load()
        assert header["step"] >= reported
        assert found["weight"].eq(header["step"]).all()
    checkpoints = Checkpoints(tmp_path, FINGERPRINT)
    checkpoints.load()
    checkpoints.clear()
    assert names(tmp_path) == set()


def test_when_a_state_is_due(tmp_path, monkeypatch):
    clock = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: clock)
    checkpoints = Checkpoints(tmp_path, FINGERPRINT, minutes=10)
    assert not checkpoints.is_due()
    clock += 601
    assert checkpoints.is_due()
    save = module.write_keeping_previous

    def slow_save(*arguments):
        nonlocal clock
        clock += 3
        return save(*arguments)

    monkeypatch.setattr(module, "write_keeping_previous", slow_save)
    checkpoints.save(1, tensors(1), {})
    clock += 10
    assert not checkpoints.is_due(epoch_ended=True)  # 3 s of saving after 10 s of training would be a good part of them
    clock += 295
    assert checkpoints.is_due(epoch_ended=True)
    assert not checkpoints.is_due()
    clock += 300
    assert checkpoints.is_due()
