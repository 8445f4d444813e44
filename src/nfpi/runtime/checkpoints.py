"""Checkpoints of a running job: its two latest states, verified by checksum.

They are saved at intervals, and when a signal stops the job.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from nfpi import __version__
from nfpi.runtime.device import describe_platform
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import remove_remains, write_keeping_previous

logger = logging.getLogger(__name__)

_NO_DIGEST = b"0" * 64
_DIGEST_KEY = b'"sha256":"'
_LARGEST_SHARE = 0.01
"""Largest share of the time that saving at the ends of epochs may take."""


class Checkpoints:
    """The two latest states of one job, in hidden files of its output folder.

    A state is written to a temporary file; then the latest one is renamed to the previous one, and the new one to the
    latest. Whenever the process is killed, an intact state remains (for a moment, three files exist). The header of
    a file holds the SHA-256 of its other bytes; if it does not match, the file is damaged and the previous one is used.

    The files are not declared as outputs, because Snakemake deletes the outputs of a job that failed. A stage that
    succeeds removes them. Their names contain the first digits of the resume key, so that a job with other settings
    neither uses nor replaces them. States of another version of this package are removed, because their meaning may
    have changed.

    Args:
        folder: output folder; created when the first state is saved.
        resume_key: digest of everything that the result depends on, in hexadecimal.
        minutes: time between two states, see :meth:`is_due`.
        unit: name of a step in messages.

    Attributes:
        step: step of the state that was saved or loaded last; None: no such state.
    """

    def __init__(self, folder: Path, resume_key: str, minutes: float = math.inf, unit: str = "step") -> None:
        self._folder, self._resume_key, self._seconds = Path(folder), resume_key, 60 * minutes
        self.path = self._folder / f".checkpoint-{resume_key[:12]}.safetensors"
        self._previous = self.path.with_suffix(".previous.safetensors")
        self._unit = unit
        self._saved_at, self._cost = time.monotonic(), 0.0
        self.step: int | None = None

    def __str__(self) -> str:
        """Return `step 40 in results/…/.checkpoint-….safetensors`, or `none`."""
        return "none" if self.step is None else f"{self._unit} {self.step} in {self.path}"

    def is_due(self, epoch_ended: bool = False) -> bool:
        """Return whether to save a state now: after `minutes`, or at the end of an epoch if saving is cheap.

        Saving is cheap if it takes a small share of the time since the last state.
        """
        passed = time.monotonic() - self._saved_at
        return passed > self._seconds or (epoch_ended and passed * _LARGEST_SHARE >= self._cost)

    def save(self, step: int, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Save the state after a step.

        Raises:
            FloatingPointError: a tensor is not finite; nothing is written.
        """
        began = time.monotonic()
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                raise FloatingPointError(f"{name}: expected finite numbers, received NaN or infinity")
        record = {**header, "step": step, "resume_key": self._resume_key, "version": __version__}
        record["platform"] = describe_platform()
        write_keeping_previous(self.path, _serialize(tensors, record), self._previous)
        self.step, self._saved_at = step, time.monotonic()
        self._cost = self._saved_at - began

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Load the latest intact state of this job, with its tensors on the CPU; None if there is no such state.

        States that are damaged or of another version of nfpi are removed, each with a warning. States of other settings
        are ignored, with warnings only if none of this job is found. A state of another processor or torch is resumed,
        with a warning.
        """
        remove_remains(self.path)
        for path in (self.path, self._previous):
            if not path.is_file():
                continue
            try:
                tensors, header = _deserialize(path.read_bytes())
                if header["resume_key"] != self._resume_key:
                    raise ValueError("another resume key")
                version = header.pop("version")
                if version != __version__:
                    raise ValueError(f"of nfpi {version}")
            except (ValueError, KeyError, TypeError, SafetensorError) as error:
                reason = format_error(error)
                logger.warning("%s: removed a checkpoint that is damaged or of another version (%s)", path, reason)
                path.unlink()  # otherwise the next save would overwrite the intact previous state with it
                continue
            self.step = int(header["step"])
            logger.info("%s: resuming from %s %d", path, self._unit, self.step)
            saved_on, here = header.pop("platform", None), describe_platform()
            if saved_on != here:
                logger.warning("%s: saved on %s, resumed on %s: the last bits may differ", path, saved_on, here)
            return tensors, header
        for path in sorted(self._list_files() - {self.path, self._previous}):
            logger.warning("%s: a checkpoint of other settings, not used", path)
        return None

    def clear(self) -> None:
        """Remove all states in the folder, also those of other settings, once the outputs are complete."""
        remove_remains(self.path)
        for path in self._list_files():
            path.unlink(missing_ok=True)
        self.step = None

    def _list_files(self) -> set[Path]:
        return set(self._folder.glob(".checkpoint-*.safetensors"))


def _serialize(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> bytearray:
    """Serialize a safetensors file with its own checksum, computed with zeros in the field of the checksum."""
    metadata = {"nfpi": json.dumps(header, allow_nan=False), "sha256": _NO_DIGEST.decode()}
    content = bytearray(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata))
    # the first match is the field itself: quotes in `header` and in names of tensors are escaped
    offset = content.index(_DIGEST_KEY + _NO_DIGEST) + len(_DIGEST_KEY)
    content[offset : offset + len(_NO_DIGEST)] = hashlib.sha256(content).hexdigest().encode()
    return content


def _deserialize(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors and header of a file that :func:`_serialize` made; ValueError if it is damaged."""
    offset = content.find(_DIGEST_KEY) + len(_DIGEST_KEY)
    found, view = content[offset : offset + len(_NO_DIGEST)], memoryview(content)
    digest = hashlib.sha256(view[:offset])
    digest.update(_NO_DIGEST)
    digest.update(view[offset + len(_NO_DIGEST) :])
    if digest.hexdigest().encode() != found:
        raise ValueError(f"{len(content)} bytes that do not agree with their checksum")
    metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return load(content), json.loads(metadata["nfpi"])
