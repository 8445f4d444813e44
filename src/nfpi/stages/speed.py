"""Run `nfpi benchmark`."""

from __future__ import annotations

from nfpi.benchmark.run import run_benchmarks
from nfpi.stages.options import Benchmark


def benchmark(stage: Benchmark) -> None:
    """Measure speed ratios, and write them."""
    run_benchmarks(stage.output, stage.repeats)
