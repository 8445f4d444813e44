"""Checkpoints of a run that is under way: its newest two states, each told whole from damaged by its checksum.

They are made in time, and when a signal stops the run (:mod:`nfpi.runtime.signals`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nfpi.runtime.files import remove_remains, write_atomically, written_together
from nfpi.runtime.signals import Interrupted, Interruption, interruptible

logger = logging.getLogger(__name__)

_NO_DIGEST = b"0" * 64
_KEY = b'"sha256":"'
_LARGEST_SHARE = 0.02  # of the time, that checkpoints at the ends of short epochs may take


class CheckpointRing:
    """The newest two states of one run, in hidden files of the folder that its outputs are to stand in.

    A state is written beside, and takes the place of the newest once that one has stepped aside: whenever the process
    is killed, a whole state is there (three of them take disk for a moment). The SHA-256 of all other bytes of a file
    stands in its header; one that does not agree is damaged, and the state before it is used.

    The files are no outputs of a stage: Snakemake deletes those of a job that failed. A stage that ends well clears
    them. Their names begin with `.checkpoint-`, then come the first digits of the fingerprint: a run of other settings
    neither uses nor replaces them.

    Args:
        folder: of the outputs; it is made when the first state is saved.
        fingerprint: of all that the result of the run depends on, in hexadecimal.
        minutes: time between two states, see :meth:`due`.
        unit: what steps are called in messages.

    Attributes:
        step: of the state that was saved or loaded last; none: there is no such state.
    """

    def __init__(self, folder: Path, fingerprint: str, minutes: float = math.inf, unit: str = "step") -> None:
        self._folder, self._fingerprint, self._seconds = Path(folder), fingerprint, 60 * minutes
        self.path = self._folder / f".checkpoint-{fingerprint[:12]}.safetensors"
        self._previous = self.path.with_suffix(".previous.safetensors")
        self._unit = unit
        self._saved, self._cost = time.monotonic(), 0.0
        self.step: int | None = None

    def __str__(self) -> str:
        """« step 40 in results/…/.checkpoint-….safetensors », or « none »."""
        return "none" if self.step is None else f"{self._unit} {self.step} in {self.path}"

    def due(self, epoch_ended: bool = False) -> bool:
        """Whether a state is to be saved now: `minutes` have passed, or an epoch ended and the last state cost little.

        Where epochs are short and states large, saving after each would take a good part of the time.
        """
        passed = time.monotonic() - self._saved
        return passed > self._seconds or (epoch_ended and passed * _LARGEST_SHARE >= self._cost)

    def save(self, step: int, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Write the state after a step.

        Raises:
            FloatingPointError: a tensor is not finite; nothing is written.
        """
        began = time.monotonic()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise FloatingPointError(f"{name}: expected finite numbers, received NaN or infinity")
        record = {**header, "step": step, "fingerprint": self._fingerprint}
        with written_together():
            write_atomically(self.path, _sealed(tensors, record))  # it lies beside until the block ends
            if self.path.exists():
                self.path.replace(self._previous)
        self.step, self._saved = step, time.monotonic()
        self._cost = self._saved - began

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest whole state of this run, its tensors on the CPU; none where there is none.

        A damaged one is passed over with a line that says so, and removed; others' are left alone, with a line.
        """
        remove_remains(self.path)
        for path in (self.path, self._previous):
            if not path.is_file():
                continue
            try:
                tensors, header = _opened(path.read_bytes())
                if header["fingerprint"] != self._fingerprint:
                    raise ValueError("its fingerprint is another")
            except (ValueError, KeyError, TypeError, SafetensorError) as error:
                reason = " ".join(str(error).split())
                logger.warning("%s: a damaged checkpoint (%s), passed over and removed", path, reason)
                path.unlink()  # else the next state would push it over the one that is whole
                continue
            self.step = int(header["step"])
            logger.info("%s: going on from %s %d", path, self._unit, self.step)
            return tensors, header
        for path in sorted(self._of_all() - self._own()):
            logger.warning("%s: a checkpoint of other settings, not used", path)
        return None

    def clear(self) -> None:
        """Remove what the run left; now that its outputs are there, those of other settings are of no use either."""
        remove_remains(self.path)
        for path in self._of_all():
            path.unlink(missing_ok=True)
        self.step = None

    def _own(self) -> set[Path]:
        return {self.path, self._previous}

    def _of_all(self) -> set[Path]:
        return set(self._folder.glob(".checkpoint-*.safetensors"))


Content = tuple[int, Mapping[str, Tensor], Mapping[str, Any]]
"""A state to keep: its step, its tensors, and what JSON knows."""


class Keeper:
    """Keeps the state of a loop while it runs.

    Args:
        ring: where; none: nowhere.
        content: what the state is now.
        interruption: what the loop asks whether to stop.
    """

    def __init__(self, ring: CheckpointRing | None, content: Callable[[], Content], interruption: Interruption) -> None:
        self._ring, self._content, self.interruption = ring, content, interruption

    def after_step(self, epoch_ended: bool = False) -> None:
        """Keep the state if it is time to; raise Interrupted if a signal has come."""
        if self._ring is not None and self._ring.due(epoch_ended):
            self._ring.save(*self._content())
        self.interruption.check()

    def stop(self, interrupted: Interrupted) -> None:
        """Keep the state that the loop was stopped in."""
        if self._ring is not None:
            self._ring.save(*self._content())
            interrupted.kept = str(self._ring)


@contextmanager
def kept_while_running(ring: CheckpointRing | None, content: Callable[[], Content]) -> Iterator[Keeper]:
    """For a loop that is long: its state is kept when it says that a step is made, and when a signal stops it.

    Where Interrupted is raised in the block, the state has to be a whole one.
    """
    with interruptible() as interruption:
        keeper = Keeper(ring, content, interruption)
        try:
            yield keeper
            interruption.check()
        except Interrupted as interrupted:
            keeper.stop(interrupted)
            raise


def _sealed(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytearray:
    """A safetensors file with the checksum of its other bytes, where zeros stand for it."""
    metadata = {"nfpi": json.dumps(header, allow_nan=False), "sha256": _NO_DIGEST.decode()}
    content = bytearray(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))
    place = content.index(_KEY + _NO_DIGEST) + len(_KEY)  # quotes inside of the header's text are escaped: it is this
    content[place : place + len(_NO_DIGEST)] = hashlib.sha256(content).hexdigest().encode()
    return content


def _opened(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of what :func:`_sealed` made; ValueError if it is not that any more."""
    place = content.find(_KEY) + len(_KEY)
    found, view = content[place : place + len(_NO_DIGEST)], memoryview(content)
    digest = hashlib.sha256(view[:place])
    digest.update(_NO_DIGEST)
    digest.update(view[place + len(_NO_DIGEST) :])
    if digest.hexdigest().encode() != found:
        raise ValueError(f"{len(content)} bytes that do not agree with their checksum")
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return load(content), json.loads(metadata["nfpi"])
