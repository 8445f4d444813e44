"""Work of the stage that measures speed."""

from __future__ import annotations

from nfpi.benchmark.run import run_benchmarks
from nfpi.stages.options import Benchmark


def benchmark(stage: Benchmark) -> None:
    """Measure, and write the ratios."""
    run_benchmarks(stage.output, stage.repeats)
