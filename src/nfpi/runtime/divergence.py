"""Divergence of a fit or a training, as a result that propagates from stage to stage.

If the fit diverges for a λ, the run has no prior, flow or images, and its row of a table reports the divergence. All
files of the run are still written: JSON and safetensors files with a record of the divergence, logs with their rows so
far, others without content. Reading a record raises the :class:`Diverged` of the fit again, as if the stages were
function calls, and the stage that reads it marks its own outputs in turn. The same holds for a training whose loss is
no longer finite.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nfpi.config.base import NonNegativeFloat, NonNegativeInt, PositiveInt
from nfpi.runs import format_weight
from nfpi.runtime.files import write_atomically, written_together
from nfpi.runtime.formats import Record, check_record, read_json_object


class _Divergence(Record):
    iteration: PositiveInt
    class_index: NonNegativeInt | None
    quantity: str
    weight: Annotated[NonNegativeFloat | None, Field(alias="lambda")]
    context: dict[str, Any] = {}
    message: str = ""
    relative_weight: NonNegativeFloat | None = None


class _Diverged(Record):
    diverged: _Divergence


@dataclass(eq=False, repr=False)
class Diverged(ArithmeticError):
    """A fit or a training diverged: a quantity is no longer finite, or no longer positive (definite).

    Attributes:
        iteration: iteration of the fit or step of the training, from 1.
        class_index: a class affected, the first or the worst conditioned; None: the quantity belongs to no class.
        quantity: what is no longer finite, or positive (definite).
        weight: λ; None: a training with no λ, or with several.
        relative_weight: s₀ of λ (:func:`nfpi.config.priors.compute_relative_weight`), added by a fixed-point iteration.
        context: further properties of the run (seed, settings), added by the code that catches the error.
        message: error message of a training, in one line.
    """

    iteration: int
    class_index: int | None
    quantity: str
    weight: float | None
    message: str = ""
    relative_weight: float | None = None
    context: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.message or self.weight is None:
            return self.message or f"diverged at iteration {self.iteration}: {self.quantity}"
        return f"the fit of the class Gaussians {self.describe_fit()}"

    def describe_fit(self) -> str:
        """Say where a fit diverged, at which λ and s₀, and, unless λ is 0, that a smaller one may converge."""
        relative = f", s₀ = {self.relative_weight:.3g}" if self.relative_weight else ""
        advice = "; a smaller λ may converge" if self.weight else ""
        return (
            f"diverged at iteration {self.iteration}: {self.quantity} of class {self.class_index} "
            f"(λ = {format_weight(self.weight or 0.0)}{relative}{advice})"
        )

    @property
    def record(self) -> dict[str, Any]:
        """The divergence with its context, as JSON values."""
        record: dict[str, Any] = {"iteration": self.iteration, "class_index": self.class_index}
        record |= {"quantity": self.quantity, "lambda": self.weight}
        record |= {"relative_weight": self.relative_weight} if self.relative_weight else {}
        return record | ({"message": self.message} if self.message else {}) | {"context": self.context}


class TrainingDiverged(Diverged):
    """A training diverged: its loss or the Gaussians that it learns or fits are no longer finite or positive definite.

    Args:
        message: one line that names the step, the seed and the settings to change.
        step: step of the training, from 1.
        quantity: what is no longer finite, or positive (definite).

    Attributes:
        log: rows of the epochs before the divergence.
    """

    def __init__(self, message: str, step: int, quantity: str) -> None:
        super().__init__(step, None, quantity, None, message)
        self.log: list[Any] = []


def raise_divergence(content: Mapping[str, Any], path: Path) -> None:
    """Raise the divergence that a file's content or header holds, if there is one.

    Raises:
        Diverged: the content holds a divergence.
        FormatError: its record is incomplete.
    """
    if "diverged" not in content:
        return
    record = check_record(_Diverged, content, path, "a divergence").diverged
    raise Diverged(**vars(record))


def raise_if_marked(path: Path) -> None:
    """Raise the divergence that a JSON file (metrics.json, meta.json, config.json) holds, if there is one.

    Raises:
        Diverged: the file holds a divergence.
        FormatError: the file is not a JSON object, or its record of the divergence is incomplete.
    """
    if path.is_file():
        raise_divergence(read_json_object(path), path)


def mark_diverged(paths: Iterable[Path], fault: Diverged) -> None:
    """Write outputs without content, all of them or none; .safetensors and .json files record the divergence.

    Args:
        paths: outputs of a stage: .safetensors, .json, .csv, .npy, .npz.
        fault: the divergence.

    Raises:
        ValueError: a file has another format.
    """
    with written_together():
        for path in paths:
            write_atomically(path, _encode_mark(path, fault))


def _encode_mark(path: Path, fault: Diverged) -> bytes | str:
    import numpy as np  # not needed where marks are only read
    from safetensors.numpy import save

    record = {"diverged": fault.record}
    match path.suffix:
        case ".safetensors":
            return save({}, metadata={"nfpi": json.dumps(record)})
        case ".json":
            return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        case ".csv":
            return "epoch\n"
        case ".npy" | ".npz":
            buffer = io.BytesIO()
            if path.suffix == ".npy":
                np.save(buffer, np.empty(0, np.uint8))
            else:
                np.savez(buffer)
            return buffer.getvalue()
    raise ValueError(f"{path}: expected a format that can record a divergence, received {path.suffix}")


NOT_FINITE = (Diverged, FloatingPointError, OverflowError)
"""Errors of computations whose numbers are not finite; others, such as ZeroDivisionError, are faults of the code."""
