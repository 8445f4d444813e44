"""Checks that the build of torch fits the card and the driver, and that the card supports a preset's precisions."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from nfpi.checks.classifiers import find_classifiers
from nfpi.checks.report import Line
from nfpi.checks.subject import Subject
from nfpi.config import Config
from nfpi.runtime.allocation import uses_cpu_on_purpose
from nfpi.runtime.devices import count_visible_gpus, describe_device
from nfpi.runtime.precision import choose_precision

_TOLERANCE = 1e-5
"""largest accepted relative error of a matrix product or convolution in float32; that of TF32 is about 3e-4"""


def check_gpu_count(config: Config) -> Line | None:
    """Return a line if this job sees fewer GPUs than its settings ask the cluster for, otherwise None."""
    resources = config.resources.get("train_flow")
    promised = 0 if resources is None or config.cluster is None or uses_cpu_on_purpose() else resources.gpu
    found = count_visible_gpus()
    if promised and not found:
        return Line(
            "device",
            "FAILED",
            f"resources.train_flow asks the cluster for {promised} GPU, but none is visible: on a login node, run "
            "`snakemake check_device` with the profile; in a job, look at cluster.partition and cluster.constraint",
        )
    if promised > found:
        return Line("device", "slow", f"resources.train_flow.gpu is {promised}, this job has {found}: set {found}")
    return None


def check_build(subject: Subject) -> Iterator[Line]:
    """Name the device and the build of torch."""
    name, build = describe_device(subject.device), f"torch {torch.__version__}"
    if not subject.on_gpu:
        yield Line("device", "ok", f"{name}, {build}; its kernels and the driver can be checked on a GPU only")
        return
    major, minor = torch.cuda.get_device_capability(subject.device)
    memory = torch.cuda.get_device_properties(subject.device).total_memory / 2**30
    yield Line(
        "device",
        "ok",
        f"{count_visible_gpus()} × {name} ({memory:.0f} GiB, sm_{major}{minor}), {build} with "
        f"{', '.join(torch.cuda.get_arch_list())}, cuDNN {torch.backends.cudnn.version()}",
    )


def check_precision(subject: Subject) -> Iterator[Line]:
    """Check that the device supports the precisions of the preset's trainings."""
    wanted: list[tuple[str, str]] = [
        (f"training of {workload.name}", workload.training.precision) for workload in subject.workloads
    ]
    wanted += [
        (f"classifiers.{name}", classifier.precision)
        for (name, dataset), classifier in find_classifiers(subject.config).items()
        if subject.dataset in (None, dataset)
    ]
    for where, precision in dict.fromkeys(wanted):
        try:
            chosen = choose_precision(precision, subject.device)
        except ValueError as error:
            yield Line("precision", "FAILED", f"{where}: {error}")
            continue
        fast = choose_precision("auto", subject.device)
        if where.startswith("training") and (chosen, fast) == ("32-true", "bf16-mixed"):
            yield Line("precision", "slow", f"{where}: {chosen}; training.precision: auto would be {fast} here")
        else:
            yield Line("precision", "ok", f"{where}: {chosen}" + (f" ({precision})" if precision != chosen else ""))


def check_float32(subject: Subject) -> Iterator[Line]:
    """Check that matrix products and convolutions in float32 are not rounded to TF32 or less."""
    generator = torch.Generator().manual_seed(0)
    images, kernel = torch.randn(8, 64, 16, 16, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
    left, right = torch.randn(256, 512, generator=generator), torch.randn(512, 256, generator=generator)
    found = {
        "convolution": torch.conv2d(images.to(subject.device), kernel.to(subject.device)),
        "product": left.to(subject.device) @ right.to(subject.device),
    }
    exact = {
        "convolution": torch.conv2d(images.double(), kernel.double()),
        "product": left.double() @ right.double(),
    }
    errors = {
        name: ((value.cpu().double() - exact[name]).norm() / exact[name].norm()).item() for name, value in found.items()
    }
    text = ", ".join(f"{name} {error:.1g}" for name, error in errors.items())
    if all(error <= _TOLERANCE for error in errors.values()):  # false for NaN
        yield Line("float32", "ok", f"relative errors: {text}; nothing is rounded to TF32")
    else:
        yield Line(
            "float32",
            "FAILED",
            f"relative errors: {text}, expected at most {_TOLERANCE:g}: TF32 or less is used; unset "
            "NVIDIA_TF32_OVERRIDE and TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
        )
