"""Real results of a tiny run: a file of every kind that one stage writes and another reads.

Environment variables set the number of damaged files and the seed: `NFPI_FUZZ_INPUTS=20000
NFPI_FUZZ_SEED=7 pytest tests/fuzz -s`.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from stages.conftest import ROOT, SmallRun, check_call, format_options
from test_release import make_released_state

from nfpi.flows import MatrixExponentialFlow
from nfpi.priors import GaussianPrior

SEED = int(os.environ.get("NFPI_FUZZ_SEED", "0"))
SWIN = {"model": "swin", "architecture": {"embed_dim": 8, "depths": [1], "num_heads": [1]}, "epochs": 1}
_MEMORY = 6 * 2**30
"""bytes that this process may allocate because of a damaged file"""


def count_inputs(default: int) -> int:
    """Return the number of damaged files that a test tries."""
    return int(os.environ.get("NFPI_FUZZ_INPUTS", default))


class TimeLimit(BaseException):
    """A test of a damaged file takes too long."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise TimeLimit after this time."""

    def stop(*_: object) -> None:
        raise TimeLimit(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """A run from its splits to the test of its classifier."""
    run = SmallRun(
        tmp_path_factory.mktemp("results"),
        images={"train_per_class": 6, "test_per_class": 2, "flip": False},
        flow={"num_flows": [1], "num_blocks": [0], "hidden_channels": [2]},
        classifier={**SWIN, "batch_size": 10, "standard": {"crop_padding": 0}},
        generation={"per_class": 2, "batch_size": 20},
        temperatures=(1,),
    )
    run.begin()
    run.train()
    run.classify()
    return run


@pytest.fixture(scope="session")
def table(run: SmallRun) -> Path:
    """The folder of a table."""
    folder = run.root / "tables"
    check_call("table", *make_table_options(run, folder))
    return folder


def make_table_options(run: SmallRun, output: Path) -> list[str]:
    """Make the options of the stage that writes the table."""
    return format_options(
        name="table2",
        table={"title": "Small", "metrics": ["nf_acc", "bits_per_dim", "cnn_acc"]},
        rows=[run.row],
        reference=ROOT / "workflow/reference/paper.csv",
        root=run.root,
        output=output,
    )


@pytest.fixture(scope="session")
def checkpoint(run: SmallRun) -> Path:
    """A checkpoint in the format of the authors' release, for images of the same size."""
    torch.manual_seed(0)
    online, averaged = (MatrixExponentialFlow((1, 8, 8), [1], [1], [2]) for _ in range(2))
    for flow in (online, averaged):
        flow.initialize(torch.rand(20, 1, 8, 8))
    prior = GaussianPrior(torch.randn(10, 64), 0.5 + torch.rand(10, 64))
    state = make_released_state(online, prior, "flow.") | make_released_state(averaged, prior, "ema.ema_model.")
    path = run.root / "release/released.ckpt"
    path.parent.mkdir()
    torch.save({"epoch": 1, "state_dict": state}, path)
    return path


@pytest.fixture(scope="package", autouse=True)
def limited_memory() -> Iterator[None]:
    """Limit the memory, so that a damaged size cannot fill that of the machine."""
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
