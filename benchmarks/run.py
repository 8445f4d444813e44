"""Measure speed and memory, relative to references that are timed in the same run.

    python benchmarks/run.py --output results/benchmark

writes benchmark.csv and benchmark.md, and a figure of costs against sizes (scaling.csv, .png and .pdf).
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median

import matplotlib
import pandas as pd
import torch
from fixed_point import measure_fixed_point, measure_large_fit
from flow import PAPER_SHAPE, Subject, count_operations, measure_actions, measure_inference, measure_training_step
from scaling import SCALES, Scale, draw_scaling, measure_scaling
from timing import Measurement, compare_times, measure_medians

from nfpi.config.flows import MatrixExponentialSettings
from nfpi.figures.style import STYLE
from nfpi.model.fitting import choose_default_settings
from nfpi.runtime.device import describe_device, make_device

_STAGES = {
    "train-flow": "nfpi.model.class_conditional, nfpi.training.flow",
    "evaluate": "nfpi.model.class_conditional, nfpi.evaluation, nfpi.results.metrics, nfpi.sampling",
}
"""stages → modules that they import when they run"""
_FIT = """
import sys, time
import numpy as np
from nfpi import ClassConditionalFlow
images = np.random.default_rng(0).integers(256, size=(512, *map(int, sys.argv[1:])), dtype=np.uint8)
began = time.perf_counter()
options = {"epochs": 4, "training": {"batch_size": 128}, "progress": False}
ClassConditionalFlow.fit(images, np.arange(512) % 4, **options)
print(time.perf_counter() - began)
"""
"""sixteen steps; arguments: H, W, C"""
_START = "from nfpi.stages.command_line import create_commands_model; create_commands_model(); import "


def _make_small_flow() -> MatrixExponentialSettings:
    """Return the settings of the flow of preset cifar10_small."""
    settings = choose_default_settings("matrix_exponential", *PAPER_SHAPE[1:])
    return MatrixExponentialSettings(**{name: value for name, value in settings.items() if name != "kind"})


@dataclass(frozen=True)
class Sizes:
    """Sizes of the measured computations; the defaults are those of the paper.

    Attributes:
        fit, large_fit: numbers of classes and dimensions, as for CIFAR100 and for ImageNet's latents.
        flow: settings of the flow, for images of 3×32×32.
        small: settings of the flow of preset cifar10_small.
        small_trained: its batch sizes of timed training steps.
        fitted: shapes (H, W, C) of the images of whole fits.
        trained, applied, counted: batch sizes of timed training steps, of other computations, and of counted steps.
    """

    fit: tuple[int, int] = (100, 3072)
    large_fit: tuple[int, int] = (1000, 4096)
    flow: MatrixExponentialSettings = field(default_factory=MatrixExponentialSettings)
    small: MatrixExponentialSettings = field(default_factory=_make_small_flow)
    small_trained: tuple[int, ...] = (32, 128)
    fitted: tuple[tuple[int, int, int], ...] = ((8, 8, 1), (32, 32, 3))
    trained: int = 16
    applied: int = 32
    counted: int = 512


TINY = MatrixExponentialSettings(num_flows=[1], num_blocks=[1], hidden_channels=[4])
SMALLEST = Sizes((5, 7), (7, 11), TINY, TINY, (2,), ((4, 4, 1),), 2, 10, 2)


def measure_all(sizes: Sizes, repeats: int) -> Iterator[Measurement]:
    """Measure everything; fits come before `make_device`, which changes how the process keeps freed memory."""
    yield from measure_start_up(min(repeats, 3))
    yield from measure_shared_cores(sizes, min(repeats, 3))
    yield from measure_fixed_point(repeats, *sizes.fit)
    yield from measure_large_fit(*sizes.large_fit)
    device = make_device().device
    yield from measure_actions(device, repeats, sizes.trained)
    yield from measure_training_step(Subject(sizes.flow, device, sizes.trained), repeats)
    for batch, precision in itertools.product(sizes.small_trained, ("32-true", "bf16-mixed")):
        yield from measure_training_step(
            Subject(sizes.small, device, batch, "small flow", precision, has_target=False), repeats
        )
    yield from measure_inference(Subject(sizes.flow, device, sizes.applied), repeats)
    yield from count_operations(sizes.flow, sizes.counted)


def measure_start_up(repeats: int) -> Iterator[Measurement]:
    """Time processes that build the parser and import what a stage needs, and one that only imports torch."""
    codes = [*(_START + modules for modules in _STAGES.values()), "import torch"]
    run = partial(subprocess.run, check=True, capture_output=True)
    *times, import_torch = measure_medians(repeats, *(partial(run, [sys.executable, "-c", code]) for code in codes))
    for stage, seconds in zip(_STAGES, times, strict=True):
        yield compare_times(f"start-up of {stage}", 'python -c "import torch"', seconds, import_torch, "at most 1.60×")


def measure_shared_cores(sizes: Sizes, repeats: int) -> Iterator[Measurement]:
    """Time fits of the default flows for small and larger images, alone and beside a process that keeps a core busy."""
    for shape in sizes.fitted:
        alone, beside = [], []
        for _ in range(repeats):
            alone.append(_time_fit(shape))
            busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                beside.append(_time_fit(shape))
            finally:
                busy.kill()
                busy.wait()
        name = f"fit, {'×'.join(map(str, shape))} images, beside a process that keeps a core busy"
        yield compare_times(name, "the same alone", median(beside), median(alone), "at most 2.00×")


def _time_fit(shape: tuple[int, int, int]) -> float:
    """Return the seconds of a fit in a process of its own, without the start of the process."""
    found = subprocess.run([sys.executable, "-c", _FIT, *map(str, shape)], check=True, capture_output=True, text=True)
    return float(found.stdout)


def main(arguments: list[str] | None = None) -> None:
    """Print each line as it is measured, and write all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--repeats", type=int, default=7, help="rounds of which medians are taken")
    parser.add_argument("--smallest", action="store_true", help="a trial with the smallest sizes")
    chosen = parser.parse_args(arguments)
    sizes: Sizes = Sizes()
    scales: tuple[Scale, ...] = SCALES
    if chosen.smallest:
        sizes, scales = SMALLEST, tuple(replace(scale, sizes=scale.sizes[:1]) for scale in SCALES)
    torch.manual_seed(0)
    measurements = []
    for measurement in measure_all(sizes, chosen.repeats):
        print(measurement.format(), flush=True)
        measurements.append(measurement)
    device = make_device().device
    write_lines(chosen.output, measurements, describe_device(device), chosen.repeats)
    write_scaling(chosen.output, measure_scaling(device, scales), scales)


def write_lines(output: Path, measurements: list[Measurement], device: str, repeats: int) -> None:
    """Write the lines as benchmark.csv, and as benchmark.md under a line that describes the machine."""
    output.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([asdict(measurement) for measurement in measurements]).to_csv(output / "benchmark.csv", index=False)
    lines = [
        f"Medians of {repeats} rounds (at most 3 of a start-up, one of the fit of K = 1000), alternating; {device}, "
        f"torch {torch.__version__}.",
        "",
        "| what | compared with | ours | other | ratio | target |",
        "| :--- | :--- | ---: | ---: | ---: | :--- |",
        *(measurement.format() for measurement in measurements),
    ]
    (output / "benchmark.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_scaling(output: Path, frame: pd.DataFrame, scales: tuple[Scale, ...]) -> None:
    """Write the times against sizes as scaling.csv, and their figure as PNG and PDF."""
    frame.to_csv(output / "scaling.csv", index=False)
    with matplotlib.rc_context(STYLE):
        figure = draw_scaling(frame, scales)
        for suffix in ("png", "pdf"):
            figure.savefig(output / f"scaling.{suffix}")


if __name__ == "__main__":
    main()
