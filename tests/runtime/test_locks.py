"""One process holds a lock; a second one learns which, and a lock ends with its process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from nfpi.runtime.locks import LockedError, acquire, locked

HOLD = "import sys, pathlib; from nfpi.runtime.locks import acquire; lock = acquire(pathlib.Path(sys.argv[1]), 'train')"


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock."""
    code = f"{HOLD}; print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_learns_who_holds_it(tmp_path, holder):
    with pytest.raises(LockedError) as caught, locked(tmp_path / "lock", "train"):
        pass
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert f"process {holder.pid} on {os.uname().nodename}, since 20" in str(caught.value)


def test_a_lock_ends_with_its_process(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with locked(tmp_path / "lock", "train"):
        assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()
    assert not (tmp_path / "lock").exists()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with locked(tmp_path / "a/b/lock", "train"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a/b/lock", "train"):
        (tmp_path / "a/file").touch()
    assert list(tmp_path.rglob("*")) == [tmp_path / "a", tmp_path / "a/file"]


def test_the_lock_of_a_replaced_folder_is_not_taken_from_the_next_holder(tmp_path):
    """The folder that a lock lies in may be replaced while it is held."""
    folder = tmp_path / "images"
    folder.mkdir()
    first = acquire(folder / "lock", "generate")
    folder.rename(tmp_path / "old")
    folder.mkdir()
    second = acquire(folder / "lock", "generate")
    first.release()
    with pytest.raises(LockedError), locked(folder / "lock", "generate"):
        pass
    second.release()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_locking_fails_a_warning_says_so_and_the_lock_of_another_process_stays(
    tmp_path, holder, monkeypatch, caplog, number
):
    def out_of_order(*_: object) -> None:
        raise OSError(number, "No locks available")

    monkeypatch.setattr("fcntl.flock", out_of_order)
    with locked(tmp_path / "lock", "train"):
        pass
    assert "locks" in caplog.text
    monkeypatch.undo()
    with pytest.raises(LockedError, match=f"process {holder.pid} on "), locked(tmp_path / "lock", "train"):
        pass


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "lock").symlink_to("mine")
    with pytest.raises(OSError, match="symbolic links"):
        acquire(tmp_path / "lock", "train")
    assert (tmp_path / "mine").read_text() == "mine"
