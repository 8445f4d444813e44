"""How long the jobs of a call will still take, by the times of jobs of the same rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean


@dataclass
class Forecast:
    """What is left to do.

    Args:
        jobs: how many there are of each rule.
        earlier: seconds of jobs of earlier calls, by rule.
    """

    jobs: Counter[str] = field(default_factory=Counter)
    earlier: Mapping[str, Sequence[float]] = field(default_factory=dict)
    _taken: dict[str, list[float]] = field(default_factory=dict)
    _waiting: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._waiting = Counter(self.jobs)

    def finished(self, rule: str, seconds: float | None) -> None:
        """Take note of a job that has ended; None: it failed."""
        self._waiting[rule] -= 1
        if seconds is not None:
            self._taken.setdefault(rule, []).append(seconds)

    def restarted(self, rule: str) -> None:
        """Take note of a job that failed and is tried again."""
        self._waiting[rule] += 1

    def of_job(self, rule: str) -> float | None:
        """Seconds that a job of a rule takes: the mean of this call, else of earlier ones; None: not known."""
        times = self._taken.get(rule) or self.earlier.get(rule)
        return fmean(times) if times else None

    def left(self, running: Mapping[str, Sequence[float]], at_once: int) -> tuple[float, bool]:
        """Seconds until all jobs have ended, and whether the times of all of their rules are known.

        Args:
            running: for how many seconds the running jobs have run, by rule.
            at_once: how many jobs run at the same time.
        """
        seconds, known = 0.0, True
        for rule, count in self._waiting.items():
            mean = self.of_job(rule)
            if count > 0 and mean is None:
                known = False
            elif count > 0 and mean is not None:
                seconds += count * mean - sum(min(passed, mean) for passed in running.get(rule, ()))
        return seconds / max(1, at_once), known
