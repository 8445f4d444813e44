"""« Diverged » as a result that passes from stage to stage.

A λ whose fit diverges has no prior, no flow and no images, and that is what its row of a table says. So each of its
files is there and holds the divergence in place of content. Whoever reads one gets the :class:`FixedPointDiverged` of
the fit again, as if the stages were function calls, and writes it on to its own outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from nfpi.files import write_atomically
from nfpi.priors.fixed_point import FixedPointDiverged

_FIELDS = ("iteration", "class_index", "quantity", "weight")


def divergence_record(fault: FixedPointDiverged) -> dict[str, Any]:
    """The divergence, with its context, as JSON knows it."""
    return {name: getattr(fault, name) for name in (*_FIELDS, "context")}


def raise_if_diverged(header: Mapping[str, Any]) -> None:
    """Raise the divergence that a file's header or metadata holds, if it holds one."""
    record = header.get("diverged")
    if isinstance(record, Mapping) and all(name in record for name in _FIELDS):
        fault = FixedPointDiverged(**{name: record[name] for name in _FIELDS})
        fault.context = dict(record.get("context", {}))
        raise fault


def mark_tensors(path: Path, fault: FixedPointDiverged) -> None:
    """Write a safetensors file without tensors that stands for the divergence."""
    header = {"diverged": divergence_record(fault)}
    write_atomically(path, save({}, metadata={"nfpi": json.dumps(header)}))


def mark_images(folder: Path, fault: FixedPointDiverged) -> None:
    """Write an image set without images that stands for the divergence."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, dtype in (("images.npy", np.uint8), ("labels.npy", np.int64)):
        np.save(folder / name, np.empty(0, dtype))
    write_atomically(folder / "meta.json", json.dumps({"diverged": divergence_record(fault)}, indent=2) + "\n")


def raise_if_marked(path: Path) -> None:
    """Raise the divergence that a JSON file (metrics.json, meta.json) holds, if it is there and holds one."""
    if path.is_file():
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: expected JSON, received something else ({error})") from None
        if isinstance(content, dict):
            raise_if_diverged(content)
