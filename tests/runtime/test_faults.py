"""Errors that a user can mend are described in one line; those of the program are not."""

from __future__ import annotations

import pytest
import torch

from nfpi.runtime.faults import describe_exhausted_memory, describe_fault


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of"), "batch size"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "7.45 GiB"),
        (RuntimeError("DataLoader worker (pid 31) is killed by signal: Killed. "), "workers"),
        (OSError(122, "Disk quota exceeded", "/x"), "/x: "),
    ],
)
def test_faults_of_other_machines_are_described_in_one_line(error, named):
    line = describe_fault(error)
    assert line is not None
    assert "\n" not in line
    assert named in line


def test_exhausted_memory_of_a_cpu_is_described():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    line = describe_exhausted_memory(raised.value, "evaluation.batch_size")
    assert "400000000000000 bytes" in line
    assert "evaluation.batch_size" in line


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("x"), TypeError(), ZeroDivisionError("by 0")],
)
def test_a_bug_keeps_its_traceback(error):
    assert describe_fault(error) is None
