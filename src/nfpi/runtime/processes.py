"""Several processes that train one flow, one a device of this machine: how they begin and end, and what they share.

The first is the one that was called; it starts its own command again for each further device. It alone answers
signals, keeps checkpoints, evaluates, logs and writes. All have the same weights after every step, so the others hold
nothing that would be missed: they end with the first, however that ends, and if one of them fails, so does the run.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from typing import IO

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.plugins.environments.lightning import find_free_network_port
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor

from nfpi.runtime.signals import SIGNALS
from nfpi.priors.statistics import ClassStatistics

_PLACE = "NFPI_PROCESS"
"""Environment variable of the further processes: their rank, and the port at which the first one waits."""

_ADDRESS = "127.0.0.1"
_CPU = torch.device("cpu")
_GRACE = 3.0  # seconds for the first process to end by itself, with its own words, once another has failed


class OneMachine(LightningEnvironment):
    """Ranks of processes that this module starts, whatever a cluster or another launcher says of the job."""

    def __init__(self) -> None:
        super().__init__()
        rank, port = os.environ.get(_PLACE, "0 0").split()
        self._rank, self._main_port = int(rank), int(port) or find_free_network_port()

    @property
    def creates_processes_externally(self) -> bool:
        """Fabric starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where the first process is."""
        return _ADDRESS

    def local_rank(self) -> int:
        """That of this process."""
        return self._rank

    def node_rank(self) -> int:
        """There is one machine."""
        return 0


@dataclass(frozen=True)
class Processes:
    """Those that share a training; alone unless told otherwise.

    What needs all of them has to be called by all of them.

    Attributes:
        rank: of this one.
        count: of all.
        device: of this one.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = _CPU

    @classmethod
    def of(cls, fabric: Fabric) -> Processes:
        """Those of a fabric, begun or not."""
        strategy = fabric.strategy
        if not isinstance(strategy, DDPStrategy):
            return cls(device=fabric.device)
        return cls(strategy.local_rank, strategy.num_processes, fabric.device)

    @property
    def first(self) -> bool:
        """Whether this is the one that answers for all."""
        return self.rank == 0

    def share(self, length: int) -> slice:
        """What this process has of a batch: the shares follow each other and differ by one image at most."""
        size, larger = divmod(length, self.count)
        start = self.rank * size + min(self.rank, larger)
        return slice(start, start + size + (self.rank < larger))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all."""
        if self.count == 1:
            return tensor
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """That of each, of one shape, in the order of their ranks."""
        if self.count == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous())
        return parts

    def merged(self, statistics: ClassStatistics) -> ClassStatistics:
        """The statistics of all."""
        if self.count == 1:
            return statistics
        columns = (statistics.count, statistics.mean, statistics.variance)
        parts = [ClassStatistics(*part) for part in zip(*map(self.gathered, columns), strict=True)]
        return reduce(ClassStatistics.merge, parts)

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """The others begin the block once the first has ended it."""
        if not self.first:
            self._wait()
        yield
        if self.first:
            self._wait()

    def _wait(self) -> None:
        self.total(torch.zeros((), device=self.device)).item()


ALONE = Processes()


@contextmanager
def one_process_a_device(fabric: Fabric) -> Iterator[Processes]:
    """In the block, the processes of a fabric work together; where it has one device, nothing is started."""
    processes = Processes.of(fabric)
    if processes.count == 1:
        yield processes
    elif processes.first:
        with _others(processes.count, _environment(fabric).main_port), _connected(fabric, processes):
            yield processes
    else:
        threading.Thread(target=_end_with_first, daemon=True).start()
        logging.disable(logging.WARNING)
        with _connected(fabric, processes):
            yield processes


def _environment(fabric: Fabric) -> OneMachine:
    assert isinstance(fabric.strategy, DDPStrategy)
    assert isinstance(fabric.strategy.cluster_environment, OneMachine)
    return fabric.strategy.cluster_environment


@contextmanager
def _connected(fabric: Fabric, processes: Processes) -> Iterator[None]:
    """The processes find each other, and part in good order if the block ends so."""
    if processes.device.type == "cuda":
        torch.cuda.set_device(processes.device)
    dist.init_process_group(
        "nccl" if processes.device.type == "cuda" else "gloo",
        init_method=f"tcp://{_ADDRESS}:{_environment(fabric).main_port}",
        rank=processes.rank,
        world_size=processes.count,
        timeout=timedelta(days=1),  # the first evaluates alone meanwhile; that one is lost is seen by _watch
    )
    fabric.launch()
    yield
    dist.destroy_process_group()  # not after an error: it would wait for those that are lost


@contextmanager
def _others(count: int, port: int) -> Iterator[None]:
    """The further processes: the command of this one again. They end when the block does."""
    closing = threading.Event()
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(1, count):
            words = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
            children.append(_started(rank, port, words))
            threading.Thread(target=_watch, args=(rank, children[-1], words, closing), daemon=True).start()
        yield
    except RuntimeError:  # so does the exchange with a process that failed: then let that one have the word
        for _ in range(round(_GRACE / 0.05)):
            if any(child.poll() for child in children):
                time.sleep(2 * _GRACE)  # _watch ends this process meanwhile
            time.sleep(0.05)
        raise
    finally:
        closing.set()
        for child in children:
            child.kill()
            child.wait()


def _started(rank: int, port: int, words: IO[bytes]) -> subprocess.Popen[bytes]:
    """One further process; signals are left to the first, from the beginning on."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS, signal.SIGINT})
    try:
        return subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | {_PLACE: f"{rank} {port}"},
            stdin=subprocess.PIPE,  # see _end_with_first
            stdout=subprocess.DEVNULL,
            stderr=words,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _watch(rank: int, child: subprocess.Popen[bytes], words: IO[bytes], closing: threading.Event) -> None:
    """End this process if another fails: the exchange with that one would never come to an end."""
    status = child.wait()
    if status == 0 or closing.wait(_GRACE):
        return
    words.seek(0)
    sys.stderr.write(words.read().decode(errors="replace"))
    if status < 0:
        name = signal.Signals(-status).name
        sys.stderr.write(f"nfpi: error: process {rank} of this run was ended by {name}, perhaps for its memory\n")
    sys.stderr.flush()
    os._exit(max(status, 1))


def _end_with_first() -> None:
    """The first process holds the other end of this one's standard input, and never writes."""
    os.read(0, 1)
    os._exit(1)
