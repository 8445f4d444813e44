"""The stage that measures speed."""

from __future__ import annotations

from nfpi.config import PositiveInt
from nfpi.stages.base import Stage


class Benchmark(Stage):
    """Measure speed, as ratios to named references.

    Measures both sides of a ratio in one run. A figure shows costs against images, classes, dimensions and levels.
    """

    command = "benchmark"
    outputs = {
        **{"csv": "benchmark.csv", "markdown": "benchmark.md"},
        **{"scaling": "scaling.csv", "png": "scaling.png", "pdf": "scaling.pdf"},
    }

    repeats: PositiveInt = 7
    """measurements of each side, whose median is taken; at most 3 for a start-up, one for the fit of K = 1000"""

    def run(self) -> None:
        """Measure speed ratios, and write them."""
        from nfpi.benchmark.run import run_benchmarks

        run_benchmarks(self.output, self.repeats)
