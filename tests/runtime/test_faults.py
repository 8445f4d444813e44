"""Errors that a user can mend are described in one line; those of the program are not."""

from __future__ import annotations

import re

import pytest
import torch

from nfpi.runtime.faults import describe_fault


@pytest.mark.parametrize(
    ("error", "stage", "line"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of"),
            "augment",
            "out of memory (CUDA out of memory): try a smaller --nfa.batch-size or a machine with more",
        ),
        (
            MemoryError("Unable to allocate 7.45 GiB for an array"),
            "collect",
            "out of memory (Unable to allocate 7.45 GiB for an array): try a machine with more",
        ),
        (
            RuntimeError("DataLoader worker (pid 31) is killed by signal: Killed. "),
            "train-flow",
            "a worker process was killed, perhaps out of memory (DataLoader worker (pid 31) is killed by signal: "
            "Killed): try fewer workers",
        ),
        (
            OSError(122, "Disk quota exceeded", "/x"),
            "evaluate",
            "/x: the quota is used up: free some of it, or write to another folder "
            "(`results:` in config.yaml, or --output)",
        ),
    ],
)
def test_faults_of_other_machines_are_described_in_one_line(error, stage, line):
    assert describe_fault(error, stage) == line


def test_exhausted_memory_of_a_cpu_is_described_without_torchs_assertion():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    line = describe_fault(raised.value, "evaluate")
    assert re.fullmatch(
        r"out of memory \(\w+: can't allocate memory: you tried to allocate 400000000000000 bytes\): "
        r"try a smaller --evaluation.batch-size or a machine with more",
        line,
    )


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("x"), TypeError(), ZeroDivisionError("by 0")],
)
def test_a_bug_keeps_its_traceback(error):
    assert describe_fault(error, "evaluate") is None
