"""Estimate the time left for the jobs of a call from the times of earlier jobs of the same rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass
class Forecast:
    """Jobs that are left, and how long jobs of each rule take.

    Args:
        jobs: number of jobs of each rule.
        earlier: seconds that jobs of earlier calls took, by rule.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    earlier: Mapping[str, Sequence[float]] = field(default_factory=dict)
    _taken: dict[str, list[float]] = field(default_factory=dict)
    _waiting: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._waiting = Counter(self.jobs)

    def finished(self, rule: str, seconds: float | None) -> None:
        """Record a job that has ended; None: it failed."""
        self._waiting[rule] -= 1
        if seconds is not None:
            self._taken.setdefault(rule, []).append(seconds)

    def restarted(self, rule: str) -> None:
        """Record a job that failed and is tried again."""
        self._waiting[rule] += 1

    def of_job(self, rule: str) -> float | None:
        """Return the mean seconds of a job of a rule, in this call or else in earlier ones; None: not known."""
        times = self._taken.get(rule) or self.earlier.get(rule)
        return fmean(times) if times else None

    def left(self, running: Mapping[str, Sequence[float]], at_once: int) -> tuple[float, bool]:
        """Return the seconds until all jobs have ended, and whether the times of all their rules are known.

        Args:
            running: seconds since each running job began, by rule.
            at_once: number of jobs that run at the same time.
        """
        seconds, known = 0.0, True
        for rule, count in self._waiting.items():
            mean = self.of_job(rule)
            if count > 0 and mean is None:
                known = False
            elif count > 0 and mean is not None:
                seconds += count * mean - sum(min(passed, mean) for passed in running.get(rule, ()))
        return seconds / max(1, at_once), known
