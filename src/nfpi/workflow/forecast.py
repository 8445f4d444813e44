"""Estimate the time left for the jobs of a workflow call from the times of earlier jobs of the same rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass
class Forecast:
    """The jobs that are left, and the times of the jobs of each rule.

    Args:
        jobs: number of jobs of each rule.
        earlier: seconds that jobs of earlier calls took, by rule.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    earlier: Mapping[str, Sequence[float]] = field(default_factory=dict)
    _durations: dict[str, list[float]] = field(default_factory=dict)
    _unfinished: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._unfinished = Counter(self.jobs)

    def record_end(self, rule: str, seconds: float | None) -> None:
        """Record that a job has ended; `seconds` is None if it failed."""
        self._unfinished[rule] -= 1
        if seconds is not None:
            self._durations.setdefault(rule, []).append(seconds)

    def record_restart(self, rule: str) -> None:
        """Record that a failed job is tried again."""
        self._unfinished[rule] += 1

    def compute_mean_seconds(self, rule: str) -> float | None:
        """Compute the mean time of a rule's jobs in this call, or else in earlier calls; None: not known."""
        times = self._durations.get(rule) or self.earlier.get(rule)
        return fmean(times) if times else None

    def estimate_seconds_left(self, running: Mapping[str, Sequence[float]], parallel_jobs: int) -> tuple[float, bool]:
        """Estimate the seconds until all jobs have ended; also return whether the times of all rules are known.

        Args:
            running: seconds since each running job began, by rule.
            parallel_jobs: number of jobs that run at the same time.
        """
        seconds, known = 0.0, True
        for rule, count in self._unfinished.items():
            mean = self.compute_mean_seconds(rule)
            if count > 0 and mean is None:
                known = False
            elif count > 0 and mean is not None:
                seconds += count * mean - sum(min(passed, mean) for passed in running.get(rule, ()))
        return seconds / max(1, parallel_jobs), known
