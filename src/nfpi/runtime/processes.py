"""Data-parallel training in several processes, one per device of this machine.

The first process is the one that was called; it starts its own command again for each further device. It alone handles
signals, saves checkpoints, evaluates, logs and writes. All processes have the same weights after every step, so the
others have no state to save: they end whenever the first one ends, and if one of them fails, the run fails.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO

import torch
import torch.distributed as dist
from torch import Tensor

from nfpi.runtime.job_log import RANK_AND_PORT, print_error
from nfpi.runtime.signals import signals_blocked

_ADDRESS = "127.0.0.1"
_CPU = torch.device("cpu")
_GRACE = 3.0
"""Seconds that the first process has, once another one has failed, to end with an error of its own that is no
RuntimeError; and that it waits, after a RuntimeError, for the failure of another process, which may be the cause."""


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as seen from one of them; by default a single one.

    Methods that exchange data have to be called in all processes.

    Attributes:
        rank: rank of this process.
        count: number of processes.
        device: device of this process.
        port: port that the first process listens on, if there are several.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = _CPU
    port: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the first process, which writes the results."""
        return self.rank == 0

    def get_slice(self, length: int) -> slice:
        """Return the part of a batch of `length` images that is this process's; part sizes differ by one at most."""
        size, larger = divmod(length, self.count)
        start = self.rank * size + min(self.rank, larger)
        return slice(start, start + size + (self.rank < larger))

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over the processes."""
        if self.count == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Collect the tensors, of equal shape, of all processes, in the order of ranks."""
        if self.count == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous())
        return parts

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Run the block in the first process, then in the others."""
        if not self.first:
            self._wait()
        yield
        if self.first:
            self._wait()

    def _wait(self) -> None:
        self.sum(torch.zeros((), device=self.device)).item()


ALONE = Processes()


def read_rank_and_port() -> tuple[int, int]:
    """Return the rank of this process, and the port that the first process listens on: a free one in that process."""
    rank, port = map(int, os.environ.get(RANK_AND_PORT, "0 0").split())
    if not port:
        with socket.create_server((_ADDRESS, 0)) as server:
            port = server.getsockname()[1]
    return rank, port


@contextmanager
def connected(processes: Processes) -> Iterator[None]:
    """Run the block in several processes; the first one starts the others, which run its command again."""
    if processes.first:
        with _other_processes(processes.count, processes.port), _process_group(processes):
            yield
        return
    threading.Thread(target=_end_with_first, daemon=True).start()
    logging.disable(logging.WARNING)
    with _process_group(processes):
        yield


@contextmanager
def _process_group(processes: Processes) -> Iterator[None]:
    """Connect to the other processes, and disconnect if the block ends without an error."""
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)
    dist.init_process_group(
        "nccl" if processes.device.type == "cuda" else "gloo",
        init_method=f"tcp://{_ADDRESS}:{processes.port}",
        rank=processes.rank,
        world_size=processes.count,
        timeout=timedelta(days=1),  # the others wait while the first evaluates; _watch notices processes that ended
    )
    yield
    dist.destroy_process_group()  # not after an error: it would wait for lost processes


@contextmanager
def _other_processes(count: int, port: int) -> Iterator[None]:
    """Start the other processes, which run the command of this one again; end them with the block."""
    closing = threading.Event()
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, count):
            errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
            children.append(_start(rank, port, errors))
            threading.Thread(target=_watch, args=(rank, children[-1], errors, closing), daemon=True).start()
        yield
    except RuntimeError:  # perhaps because another process failed: if so, its error is reported
        for _ in range(round(_GRACE / 0.05)):
            if any(child.poll() for child in children):
                time.sleep(2 * _GRACE)  # _watch ends this process in the meantime
            time.sleep(0.05)
        raise
    finally:
        closing.set()
        for child in children:
            child.kill()
            child.wait()


def _start(rank: int, port: int, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start another process with signals blocked, because the first one handles them."""
    with signals_blocked():
        return subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | {RANK_AND_PORT: f"{rank} {port}"},
            stdin=subprocess.PIPE,  # see _end_with_first
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )


def _watch(rank: int, child: subprocess.Popen[bytes], errors: IO[bytes], closing: threading.Event) -> None:
    """End this process if another one fails, because communication with a failed process never ends."""
    status = child.wait()
    if status == 0 or closing.wait(_GRACE):
        return
    errors.seek(0)
    text = errors.read().decode(errors="replace")
    if status < 0:
        sys.stderr.write(text)
        name = signal.strsignal(-status)
        print_error(f"process {rank} of this run was ended by signal {-status} ({name}), perhaps out of memory")
    else:
        *before, last = text.splitlines() or [f"process {rank} of this run failed"]
        sys.stderr.write("".join(f"{line}\n" for line in before))
        print_error(last.removeprefix("nfpi: error: "))
    os._exit(max(status, 1))


def _end_with_first() -> None:
    """End this process with the first one, which holds the other end of its stdin and never writes to it."""
    os.read(0, 1)
    os._exit(1)
