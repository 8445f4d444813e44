"""SIGTERM and SIGUSR1: where they stop what runs, and that nothing else of the process changes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from nfpi.data.batches import load_batches
from nfpi.data.store import ImageSet
from nfpi.runtime import signals as module
from nfpi.runtime.signals import INTERRUPTS, Interrupted, interruptible, note_interrupt

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])


@pytest.fixture(autouse=True)
def handlers_stay():
    before = [signal.getsignal(number) for number in module.SIGNALS]
    yield
    assert [signal.getsignal(number) for number in module.SIGNALS] == before


@BOTH
def test_a_loop_stops_where_it_asks(number):
    done = []

    def loop() -> None:
        with interruptible() as interruption:
            for step in range(5):
                if step == 2:
                    signal.raise_signal(number)
                done.append(step)
                interruption.check()

    with pytest.raises(Interrupted, match=f"stopped by {number.name}"):
        loop()
    assert done == [0, 1, 2]


def test_a_ctrl_c_that_a_destructor_swallows_stops_a_loop(monkeypatch):
    class Temporary:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def loop():
        with interruptible() as interruption:
            Temporary()
            interruption.check()

    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before = signal.signal(signal.SIGINT, note_interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop()
    finally:
        signal.signal(signal.SIGINT, before)
        INTERRUPTS.clear()


@BOTH
def test_a_block_that_never_asks_ends_first(number):
    done = []

    def block() -> None:
        with interruptible():
            signal.raise_signal(number)
            done.append(1)

    with pytest.raises(Interrupted):
        block()
    assert done == [1]


def test_what_may_stop_anywhere_does_so_at_once():
    def block() -> None:
        with interruptible(at_once=True):
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("went on")

    def stopped_within() -> None:
        with interruptible() as interruption, interruption.at_once():
            signal.raise_signal(signal.SIGUSR1)
            pytest.fail("went on")

    def stopped_before() -> None:
        with interruptible() as interruption:
            with interruption.at_once():
                pass
            signal.raise_signal(signal.SIGUSR1)
            assert bool(interruption._name)
            with interruption.at_once():
                pytest.fail("began")

    for function in (block, stopped_within, stopped_before):
        with pytest.raises(Interrupted):
            function()


def test_a_loop_within_a_block_that_stops_at_once():
    done = []

    def loop() -> None:
        with interruptible(at_once=True), interruptible() as interruption:
            signal.raise_signal(signal.SIGTERM)
            done.append(1)
            interruption.check()

    with pytest.raises(Interrupted):
        loop()
    assert done == [1]


def test_a_repeated_signal_is_ignored_for_a_second_and_kills_later():
    program = """
import signal, sys, time
from nfpi.runtime import signals as module
with module.interruptible() as interruption:
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        signal.raise_signal(number)
    print("alive", flush=True)
    module._GRACE = 0
    signal.raise_signal(signal.SIGUSR1)
    print("alive", flush=True)
    signal.raise_signal(signal.SIGTERM)
    print("alive", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGTERM, done.stderr
    assert done.stdout.split() == ["alive", "alive"]


def test_other_threads_leave_signals_alone():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def work() -> None:
        with interruptible() as interruption:
            inside.append((signal.getsignal(signal.SIGTERM), bool(interruption._name)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(before, False)]


def children() -> list[int]:
    listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="], capture_output=True, text=True)
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if line.split()[1] != "ps"]


def test_workers_leave_a_signal_to_their_group_to_their_parent():
    length, others = 400, set(children())
    image_set = ImageSet(np.zeros((length, 8, 8, 1), np.uint8), np.zeros(length, np.int64), {"classes": ["a"]})
    stream = load_batches(image_set, 1, seed=0, workers=2)
    next(stream)
    time.sleep(0.2)  # both have begun
    workers = set(children()) - others
    assert len(workers) == 2
    for name in ("TERM", "USR1"):  # from a process that is not their parent
        subprocess.run(["sh", "-c", f"kill -{name} {' '.join(map(str, workers))}"], check=True)
    assert sum(1 for _ in stream) == length - 1


def wait_as_a_worker(ready) -> None:
    module.leave_signals_to_parent()
    ready.set()
    time.sleep(60)


def test_a_worker_still_ends_when_its_parent_says_so():
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=wait_as_a_worker, args=(ready,))
    worker.start()
    ready.wait()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
