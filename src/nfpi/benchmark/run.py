"""All lines of the benchmark, and the files that they are written to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from nfpi.benchmark.actions import measure_actions
from nfpi.benchmark.compiled import measure_compiled_step
from nfpi.benchmark.computations import measure_counts
from nfpi.benchmark.convolutions import measure_inference, measure_training_step
from nfpi.benchmark.fixed_point import measure_fixed_point, measure_large_fit
from nfpi.benchmark.measurement import Measurement, format_table
from nfpi.benchmark.scaling import NAME, draw_scaling, measure_scaling
from nfpi.benchmark.start_up import measure_start_up
from nfpi.figures.drawn import save_drawn
from nfpi.results.recorded.csv_files import write_csv
from nfpi.runtime.devices import make_device
from nfpi.runtime.files import write_atomically, written_together

Measure = Callable[[torch.device, int], Iterable[Measurement]]

CPU_MEASURES: tuple[Measure, ...] = (measure_start_up, measure_fixed_point, measure_large_fit)
"""Run on the CPU before `make_device` is called, because the fit of a prior does not call it either."""
DEVICE_MEASURES: tuple[Measure, ...] = (
    measure_actions,
    measure_training_step,
    measure_inference,
    measure_counts,
    measure_compiled_step,
)
"""Run on the best device after `make_device`, which makes the process keep freed host memory, as in training."""


def run_benchmarks(output: Path, repeats: int) -> list[Measurement]:
    """Run all measurements, and write benchmark.csv, benchmark.md and the figure of cost over size to a folder.

    Args:
        output: the folder.
        repeats: number of timed runs of each side of a comparison, after a warm-up run; at most 3 of a start-up. The
            fit of K = 1000 runs once.
    """
    torch.manual_seed(0)
    measurements: list[Measurement] = []
    with tqdm(total=len(CPU_MEASURES) + len(DEVICE_MEASURES) + 1, desc="benchmark", disable=None) as progress:
        for measure in CPU_MEASURES:
            measurements += measure(torch.device("cpu"), repeats)
            progress.update()
        device = make_device().device
        for measure in DEVICE_MEASURES:
            measurements += measure(device, repeats)
            progress.update()
        drawn = draw_scaling(measure_scaling(device))
        progress.update()
    with written_together():
        write_csv(pd.DataFrame([asdict(measurement) for measurement in measurements]), output / "benchmark.csv")
        write_atomically(output / "benchmark.md", format_table(measurements, device, repeats))
        save_drawn(drawn, output, NAME)
    return measurements
