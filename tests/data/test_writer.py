"""Image sets that a process was writing when it was stopped or killed, and that the next process resumes."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest

from nfpi.data import ImageSetWriter, read_image_set
from nfpi.data.writer import LabelledRows, replace_folder
from nfpi.runtime.locks import LockedError
from nfpi.runtime.signals import Interrupted

FINGERPRINT, OTHER = "ab" * 32, "cd" * 32
LENGTH, SHAPE = 20, (3, 3, 1)


@pytest.fixture
def arrays() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (LENGTH, *SHAPE), np.uint8), generator.integers(0, 2, LENGTH)


def writer_of(folder: Path, resume_key: str | None = FINGERPRINT) -> ImageSetWriter:
    return ImageSetWriter(folder, LENGTH, SHAPE, ["a", "b"], name="toy", split="train", resume_key=resume_key)


def write_until(folder: Path, arrays: tuple[np.ndarray, np.ndarray], stop: int, error: BaseException) -> None:
    """Three images at a time, out of order; then the error."""
    images, labels = arrays
    order = np.random.default_rng(1).permutation(LENGTH)
    with writer_of(folder) as writer:
        for start in range(0, stop, 3):
            places = order[start : min(start + 3, stop)]
            writer.put(places, images[places], labels[places])
        raise error


def finish(folder: Path, arrays: tuple[np.ndarray, np.ndarray], resume_key: str | None = FINGERPRINT) -> int:
    """Write what is missing, and see that all is there; the number of images that were."""
    images, labels = arrays
    with writer_of(folder, resume_key) as writer:
        missing = np.flatnonzero(~writer.rows.written)
        writer.put(missing, images[missing], labels[missing])
    found = read_image_set(folder)
    assert np.array_equal(found.images, images)
    assert np.array_equal(found.labels, labels)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert {path.name for path in folder.iterdir()} == {"images.npy", "labels.npy", "meta.json"}
    return LENGTH - len(missing)


@pytest.mark.parametrize("stop", [0, 1, 11, LENGTH])
@pytest.mark.parametrize("error", [Interrupted("SIGTERM"), KeyboardInterrupt()], ids=["signal", "Ctrl-C"])
def test_a_set_that_was_stopped_is_gone_on_with(tmp_path, arrays, stop, error):
    with pytest.raises(type(error)):
        write_until(tmp_path / "set", arrays, stop, error)
    assert not (tmp_path / "set").exists()
    assert finish(tmp_path / "set", arrays) == stop


def test_an_old_set_stays_until_then(tmp_path, arrays):
    finish(tmp_path / "set", arrays)
    before = (tmp_path / "set/images.npy").read_bytes()
    others = (255 - arrays[0], arrays[1])
    with pytest.raises(Interrupted):
        write_until(tmp_path / "set", others, 11, Interrupted("SIGTERM"))
    assert (tmp_path / "set/images.npy").read_bytes() == before
    assert finish(tmp_path / "set", others) == 11


@pytest.mark.parametrize("resume_key", [OTHER, None])
def test_a_set_of_other_settings_is_not_used(tmp_path, arrays, resume_key):
    with pytest.raises(Interrupted):
        write_until(tmp_path / "set", arrays, 11, Interrupted("SIGTERM"))
    assert finish(tmp_path / "set", arrays, resume_key) == 0


def test_after_an_error_nothing_is_left(tmp_path, arrays):
    with pytest.raises(RuntimeError):
        write_until(tmp_path / "set", arrays, 11, RuntimeError())
    assert list(tmp_path.iterdir()) == []


def write_and_die(folder: Path, arrays: tuple[np.ndarray, np.ndarray], ready) -> None:
    images, labels = arrays
    with writer_of(folder) as writer:
        writer.put(np.arange(7), images[:7], labels[:7])
        writer.rows.save_progress()
        writer.put(np.arange(7, 12), images[7:12], labels[7:12])
        ready.set()
        signal.pause()


def test_recorded_rows_survive_a_kill_and_a_second_writer_is_refused(tmp_path, arrays):
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    process = fork.Process(target=write_and_die, args=(tmp_path / "set", arrays, ready))
    process.start()
    ready.wait()
    for resume_key in (FINGERPRINT, OTHER, None):
        with pytest.raises(LockedError), writer_of(tmp_path / "set", resume_key):
            pytest.fail("began")
    process.kill()
    process.join()
    assert finish(tmp_path / "set", arrays) == 7


def flip_bits_of_two_rows(content: bytes) -> bytes:
    damaged = bytearray(content)
    damaged[-1] ^= 1
    damaged[-30] ^= 128
    return bytes(damaged)


@pytest.mark.parametrize(
    ("damage", "kept"),
    [(flip_bits_of_two_rows, LENGTH - 2), (lambda content: content[:-40], LENGTH - 5), (None, 0)],
    ids=["damaged", "truncated", "gone"],
)
def test_rows_that_are_damaged_or_gone_are_written_again(tmp_path, arrays, damage, kept):
    with pytest.raises(Interrupted):
        write_until(tmp_path / "set", arrays, LENGTH, Interrupted("SIGTERM"))
    (path,) = tmp_path.glob(".set.*.partial/images.npy")
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        path.write_bytes(damage(content))
    assert finish(tmp_path / "set", arrays) == kept


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_rows_of_another_dtype_are_restored(tmp_path, dtype):
    rows = np.linspace(0, 1, 12, dtype=dtype).reshape(4, 3)
    first = LabelledRows(tmp_path / "array.npy", (6, 3), np.float32, FINGERPRINT)
    first.put(np.arange(4), rows, np.arange(4))
    first.save_progress()
    second = LabelledRows(tmp_path / "array.npy", (6, 3), np.float32, FINGERPRINT)
    assert second.first_missing == 4
    assert np.array_equal(second.array[:4], rows.astype(np.float32))


def test_remains_of_killed_processes_go_once_the_folder_is_there(tmp_path):
    others = (".other.0123456789ab.partial", ".set.1.0123456789ab.partial")  # of `other` and of `set.1`
    for name in (".set.0123456789ab.partial", ".set.0123456789ab.old", *others):
        (tmp_path / name).mkdir()
    with replace_folder(tmp_path / "set", ["file"]) as partial:
        (partial / "file").touch()
    assert {path.name for path in tmp_path.iterdir()} == {"set", *others}


def test_disk_space_is_allocated_before_anything_is_written(tmp_path):
    """A memory map that finds none later would be killed by SIGBUS."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            LabelledRows(tmp_path / "array.npy", (1000, 8), np.float32)
        except OSError as error:
            os._exit(0 if error.filename == str(tmp_path / "array.npy") else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    LabelledRows(tmp_path / "array.npy", (1000, 8), np.float32)
    status = (tmp_path / "array.npy").stat()
    assert status.st_blocks * 512 >= status.st_size
