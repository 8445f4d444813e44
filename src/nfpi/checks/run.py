"""Run all checks of a preset in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from nfpi.checks.build import check_build, check_float32, check_gpu_count, check_precision
from nfpi.checks.classifiers import check_classifiers
from nfpi.checks.flow import check_bounds, check_flow_precision
from nfpi.checks.given import check_account, check_autoencoder, check_data, check_weights
from nfpi.checks.hours import check_hours, check_passes
from nfpi.checks.machine import check_loader, check_shared_memory, check_threads
from nfpi.checks.processes import check_processes
from nfpi.checks.report import Line, format_error
from nfpi.checks.steps import (
    check_checkpoint,
    check_memory,
    check_speed,
    check_synchronisations,
)
from nfpi.checks.subject import Subject, release_memory
from nfpi.checks.workloads import find_workloads
from nfpi.config import Resolved
from nfpi.runtime.allocation import DeviceError
from nfpi.runtime.devices import make_device
from nfpi.runtime.faults import describe_fault
from nfpi.runtime.signals import Interrupted

Check = Callable[[Subject], Iterator[Line]]

CHECKS: tuple[Check, ...] = (
    check_build,
    check_precision,
    check_float32,
    check_threads,
    check_shared_memory,
    check_account,
    check_data,
    check_weights,
    check_flow_precision,
    check_bounds,
    check_checkpoint,
    check_synchronisations,
    check_memory,
    check_speed,
    check_loader,
    check_processes,
    check_passes,
    check_classifiers,
    check_autoencoder,
    check_hours,
)
"""In order: quick checks come first, and hours are computed from the times that all others measured."""


def run_checks(resolved: Resolved, dataset: str | None = None, flow: str | None = None) -> Iterator[Line]:
    """Check this machine for a preset; yield a line for each finding, as it is found.

    Args:
        resolved: settings of the preset.
        dataset, flow: check only the trainings on this data set and of this flow; None: all of the preset.

    Raises:
        ValueError: the preset does not train this flow on this data set.
    """
    try:
        device = make_device().device
    except DeviceError as error:
        yield Line("device", "FAILED", str(error))
        return
    lack = check_gpu_count(resolved.config)  # fewer GPUs than train_flow requests
    if lack is not None:
        yield lack
        if lack.verdict == "FAILED":
            return
    subject = Subject(
        resolved.preset, resolved.config, find_workloads(resolved, dataset, flow), device, dataset=dataset
    )
    for check in CHECKS:
        yield from run_check(check, subject)


def run_check(check: Check, subject: Subject) -> Iterator[Line]:
    """Yield the lines of a check, the last of which reports its error if it raises one."""
    try:
        with torch.random.fork_rng(devices=[]):
            yield from check(subject)
    except Interrupted:
        raise
    except Exception as error:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        text = describe_fault(error, "check-device") or f"{type(error).__name__}: {format_error(error)}"
        yield Line(name, "FAILED", text)
    finally:
        release_memory()
