"""`predictions.npz`: what a flow or a classifier says of each test image, in the order of the split."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from nfpi.results.records import MetricsError
from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N images of K classes.

    Attributes:
        label: index of the class, (N,) int32.
        predicted: argmax_y log p(x | y), (N,) int32.
        log_prob: of the own class: log p(x | y) of a flow, the log-softmax of a classifier, (N,) float32.
        class_log_prob: log p(y | x) under equal class frequencies, (N, K) float16; at least −65504, as float16 is.
    """

    label: np.ndarray
    predicted: np.ndarray
    log_prob: np.ndarray
    class_log_prob: np.ndarray


_TYPES = {"label": np.int32, "predicted": np.int32, "log_prob": np.float32, "class_log_prob": np.float16}


def write_predictions(path: str | os.PathLike[str], labels: Tensor, log_prob: Tensor) -> None:
    """Write predictions, whole or not at all.

    Args:
        path: a .npz file.
        labels: indices of classes, (N,).
        log_prob: log p(x | y) of a flow, or the log-softmax of a classifier, (N, K).

    Raises:
        MetricsError: a log-probability is NaN.
    """
    if log_prob.isnan().any():
        raise MetricsError(f"{path}: expected log-probabilities, received NaN")
    smallest = float(np.finfo(np.float16).min)
    arrays = {
        "label": labels,
        "predicted": log_prob.argmax(1),
        "log_prob": log_prob.gather(1, labels[:, None]).squeeze(1),
        "class_log_prob": log_prob.log_softmax(1).clamp(min=smallest),
    }
    buffer = io.BytesIO()
    stored: dict[str, Any] = {name: value.cpu().numpy().astype(_TYPES[name]) for name, value in arrays.items()}
    np.savez_compressed(buffer, **stored)
    write_atomically(path, buffer.getvalue())


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises:
        MetricsError: the file is something else, or stands for a run that diverged.
        OSError: it cannot be read.
    """
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, BadZipFile) as error:
        raise MetricsError(f"{path}: expected predictions, received something else ({error})") from None
    if not arrays:
        raise MetricsError(f"{path}: the run diverged: there are no predictions")
    missing = _TYPES.keys() - arrays.keys()
    if missing:
        raise MetricsError(f"{path}: expected {', '.join(_TYPES)}, received {', '.join(arrays)}")
    return Predictions(**{name: arrays[name] for name in _TYPES})
