"""What the stages share. Everything heavy is imported by the stage that needs it, so that help is quick."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from nfpi.runtime.files import require_writable, written_together

if TYPE_CHECKING:
    from nfpi.data.store import ImageSet
    from nfpi.priors.fixed_point import FixedPointDiverged

logger = logging.getLogger(__name__)


class Stage(BaseModel):
    """A subcommand."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def run(self) -> None:
        """Do the work."""
        raise NotImplementedError

    if TYPE_CHECKING:  # every stage says what its own is
        output: Path

    def cli_cmd(self) -> None:
        """What the command line calls; where nothing can be written in the end, nothing is begun."""
        require_writable(self.output)
        self.run()


class HeavyStage(Stage):
    """A stage that works with tensors, and may depend on a fit that diverged."""

    def mark(self, fault: FixedPointDiverged) -> None:
        """Write to all outputs that the fit this run depends on diverged."""
        raise fault

    def cli_cmd(self) -> None:
        """Do the work; where the fit diverged, that is the result."""
        from nfpi.priors.fixed_point import FixedPointDiverged

        try:
            super().cli_cmd()
        except FixedPointDiverged as fault:
            with written_together():
                self.mark(fault)
            logger.warning("%s", fault)


def write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    """Write a table as csv; with its header where there are no rows."""
    import pandas as pd

    from nfpi.results.records import write_csv

    write_csv(pd.DataFrame(rows, columns=columns), path)


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """An epoch a row."""
    write_rows(path, list(rows[0]) if rows else ["epoch"], rows)


def mark_metrics(path: Path, fault: FixedPointDiverged) -> None:
    """Write a metrics.json that says « diverged » in place of values."""
    from nfpi.results.records import write_metrics
    from nfpi.runtime.divergence import divergence_record

    write_metrics(
        path,
        {},
        n=0,
        seed=fault.context.get("seed", 0),
        settings=fault.context,
        device="none",
        seconds=0.0,
        diverged=divergence_record(fault),
    )


def images_of_flow(data: Path, flow: Path, header: Mapping[str, Any]) -> ImageSet:
    """The training images below `data`, which have the classes that a flow, read with this header, was trained on."""
    from nfpi.data.errors import DataError
    from nfpi.data.store import read_image_set

    train = read_image_set(data / "train")
    if header["data"]["classes"] != train.classes:
        raise DataError(f"{data}: expected the classes that {flow} was trained on, received others")
    return train
