"""Errors that a user can mend are described in one line; those of the program are not."""

from __future__ import annotations

import re

import pytest
import torch

from nfpi.runtime.faults import describe_exhausted_memory, describe_fault


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of"),
            ["out of memory", "CUDA out of memory", "batch size"],
        ),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), ["out of memory", "7.45 GiB"]),
        (RuntimeError("DataLoader worker (pid 31) is killed by signal: Killed. "), ["pid 31", "fewer workers"]),
        (OSError(122, "Disk quota exceeded", "/x"), ["/x: ", "quota"]),
    ],
)
def test_faults_of_other_machines_are_described_in_one_line(error, named):
    line = describe_fault(error)
    assert line is not None
    assert "\n" not in line
    assert all(part in line for part in named)


def test_exhausted_memory_of_a_cpu_is_described():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    line = describe_exhausted_memory(raised.value, "evaluation.batch_size")
    assert re.match(r"out of memory \(.*can't allocate memory: you tried to allocate 400000000000000 bytes", line)
    assert "evaluation.batch_size" in line


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("x"), TypeError(), ZeroDivisionError("by 0")],
)
def test_a_bug_keeps_its_traceback(error):
    assert describe_fault(error) is None
