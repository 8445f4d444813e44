"""Files of a stage that come together, and folders that cannot be written."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from nfpi.runtime.files import require_writable, write_atomically, written_together


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_file_that_cannot_be_renamed_is_named_by_its_own_path(tmp_path):
    (tmp_path / "out.json").mkdir()
    with pytest.raises(IsADirectoryError) as error, written_together():
        write_atomically(tmp_path / "out.json", "x")
    assert error.value.filename == str(tmp_path / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_files_that_are_written_together_appear_at_the_end(tmp_path):
    write_atomically(tmp_path / "b", "old")
    with written_together():
        write_atomically(tmp_path / "a", "new")
        write_atomically(tmp_path / "b", "new")
        assert [name for name in contents(tmp_path) if not name.startswith(".")] == ["b"]
        assert (tmp_path / "b").read_text() == "old"
    assert contents(tmp_path) == {"a": "new", "b": "new"}


def test_after_an_error_no_file_of_a_group_appears(tmp_path):
    write_atomically(tmp_path / "b", "old")

    @written_together()
    def write() -> None:
        write_atomically(tmp_path / "a", "new")
        write_atomically(tmp_path / "b", "new")
        write_atomically(tmp_path / "c", "\ud800")

    with pytest.raises(UnicodeEncodeError):
        write()
    assert contents(tmp_path) == {"b": "old"}
    write_atomically(tmp_path / "c", "alone again")
    assert contents(tmp_path) == {"b": "old", "c": "alone again"}


def test_files_of_an_inner_block_wait_for_the_outer_one(tmp_path):
    with written_together():
        with written_together():
            write_atomically(tmp_path / "a", "new")
        assert not (tmp_path / "a").exists()
    assert contents(tmp_path) == {"a": "new"}


def in_a_child(action: Callable[[], None]) -> int:
    """The status of a process of its own that does it: what it does to its limits ends with it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_file_that_finds_no_room_is_named_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def write_too_much() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="file") as error:
            write_atomically(path, bytes(2000))
        assert error.value.errno == errno.EFBIG
        assert error.value.filename == str(path)

    assert in_a_child(write_too_much) == 0
    assert contents(tmp_path) == {"file": "old"}


def test_a_name_that_is_too_long_is_named(tmp_path):
    path = tmp_path / ("a" * 240)  # of at most 255 with the temporary file's affixes
    with pytest.raises(OSError, match="File name too long") as caught:
        write_atomically(path, "text")
    assert caught.value.filename == str(path)


def test_what_can_be_written_is_and_nothing_is_made(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "new", tmp_path / "new/and/newer"):
        require_writable(path)
    assert contents(tmp_path) == {"file": ""}
    with pytest.raises(NotADirectoryError):
        require_writable(tmp_path / "file/new")


def test_a_place_in_a_folder_without_the_right_to_write_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").touch()
    for folder in (tmp_path, *tmp_path.parents):  # whoever is to try must come here
        if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "folder").chmod(0o555)

    def try_it() -> None:
        if os.getuid() == 0:
            os.setresuid(65534, 65534, 65534)
        for path in ("folder", "folder/file", "folder/new/newer"):
            with pytest.raises(PermissionError, match="folder"):
                require_writable(tmp_path / path)

    assert in_a_child(try_it) == 0
