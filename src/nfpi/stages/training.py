"""What the stages that train have in common: they resume if stopped, and their divergence is a result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nfpi.results.recorded.csv_files import write_log
from nfpi.runtime.divergence import Diverged, TrainingDiverged, mark_diverged
from nfpi.runtime.files import run_after_commit
from nfpi.runtime.job_log import is_first_process
from nfpi.stages.base import Stage

if TYPE_CHECKING:
    from nfpi.runtime.checkpoints import Checkpoints


class TrainingStage(Stage):
    """A stage that trains a network; its output `history` is the log of the training."""

    @contextmanager
    def resuming(self, minutes: float, weight: float | None = None, **context: Any) -> Iterator[Checkpoints]:
        """Provide the checkpoints of a training, and remove them once the outputs of the stage are complete.

        Args:
            minutes: time between two checkpoints.
            weight: λ, for the record of a divergence.
            context: further properties of the run, for the record of a divergence.
        """
        from nfpi.runtime.checkpoints import Checkpoints

        checkpoints = Checkpoints(self.output, self.resume_key, minutes)
        try:
            yield checkpoints
        except TrainingDiverged as fault:
            fault.weight, fault.context = weight, context
            if is_first_process():
                run_after_commit(checkpoints.clear)  # trained again, it would diverge again
            raise
        if is_first_process():
            run_after_commit(checkpoints.clear)

    def record_divergence(self, fault: Diverged) -> None:
        """Write the log of a training that diverged, and other outputs that record the divergence."""
        outputs, history = self.list_output_paths(), self.get_path("history")
        if isinstance(fault, TrainingDiverged):
            write_log(history, fault.log)
            outputs.remove(history)
        mark_diverged(outputs, fault)
