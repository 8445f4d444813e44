"""Read and write predictions.npz: the predictions for each test image, in the order of the split."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfpi.results.recorded.records import MetricsError
from nfpi.runs import METRICS_FILE, PREDICTIONS_FILE, Run
from nfpi.runtime.divergence import raise_if_marked
from nfpi.runtime.faults import format_error
from nfpi.runtime.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N images of K classes.

    Attributes:
        label: index of the class, (N,) int32.
        predicted: index of the class with the highest log-probability, (N,) int32.
        log_prob: log p(x | y) of a flow, or the log-softmax of a classifier, for the class of the label, (N,) float32.
        class_log_prob: log p(y | x), of a flow under equal class frequencies, (N, K) float32.
        validation_label: index of the class of each of the M validation images, (M,) int32; (0,) if there are none.
        validation_class_log_prob: log p(y | x) of these, (M, K) float32.

    Those of :func:`read_packed_predictions` have no log p(x | y), and only some have log p(y | x).
    """

    label: np.ndarray
    predicted: np.ndarray
    log_prob: np.ndarray
    class_log_prob: np.ndarray
    validation_label: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    validation_class_log_prob: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def is_correct(self) -> np.ndarray:
        """Whether each image is classified correctly, (N,) bool."""
        is_correct: np.ndarray = self.predicted == self.label
        return is_correct

    @property
    def confidence(self) -> np.ndarray:
        """Probability of the most probable class of each image, (N,) float64."""
        confidence: np.ndarray = np.exp(self.class_log_prob.max(1).astype(np.float64)).clip(0, 1)
        return confidence


_CLASS_LOG_PROB = "class_log_prob"
_PACKED = ("label", "predicted", _CLASS_LOG_PROB, "validation_label", f"validation_{_CLASS_LOG_PROB}")
_VALIDATION = {"validation_label": np.int32, "validation_class_log_prob": np.float32}
_TYPES = {
    **{"label": np.int32, "predicted": np.int32, "log_prob": np.float32, _CLASS_LOG_PROB: np.float32},
    **_VALIDATION,
}


def write_predictions(
    path: str | os.PathLike[str], labels: Tensor, log_prob: Tensor, validation: tuple[Tensor, Tensor] | None = None
) -> None:
    """Write predictions atomically.

    Args:
        path: a .npz file.
        labels: indices of classes, (N,).
        log_prob: log p(x | y) of a flow, or the log-softmax of a classifier, (N, K).
        validation: labels and log_prob of the validation images; None: there are none.

    Raises:
        MetricsError: a log-probability is NaN or +∞, or −∞ for the class of the label.
    """
    label_log_prob = log_prob.gather(1, labels[:, None]).squeeze(1)
    if (log_prob.isnan() | log_prob.isposinf()).any() or not label_log_prob.isfinite().all():
        raise MetricsError(f"{path}: expected log-probabilities, received NaN or infinity")
    validation_labels, validation_log_prob = validation or (labels[:0], log_prob[:0])
    smallest = float(np.finfo(np.float32).min)
    arrays = {
        "label": labels,
        "predicted": log_prob.argmax(1),
        "log_prob": label_log_prob,
        "class_log_prob": log_prob.log_softmax(1).clamp(min=smallest),
        "validation_label": validation_labels,
        "validation_class_log_prob": validation_log_prob.log_softmax(1).clamp(min=smallest),
    }
    write_atomically(path, _compress({name: value.cpu().numpy() for name, value in arrays.items()}))


def find_predictions(root: str | os.PathLike[str], run: Run) -> Predictions | None:
    """Read the predictions of a run in a folder results/{preset}, as :func:`read_predictions`; None: there are none."""
    path = Path(root, run.folder, PREDICTIONS_FILE)
    return read_predictions(path) if path.is_file() else None


def pack_predictions(predictions: Mapping[str, Predictions]) -> bytes:
    """Return the contents of a file of predictions of several runs, by the runs' folders; empty arrays are left out.

    Log-probabilities are rounded to float16: by at most 0.05 % (3e-8 above −6e-5), and −65504 at least.
    """
    arrays = {f"{folder}/{name}": getattr(found, name) for folder, found in predictions.items() for name in _PACKED}
    return _compress({name: array for name, array in arrays.items() if array.size}, np.float16)


def read_packed_predictions(path: Path) -> dict[str, Predictions]:
    """Read a file of :func:`pack_predictions`, by the runs' folders.

    Raises:
        MetricsError: the file has other contents.
        OSError: the file cannot be read.
    """
    arrays = _read_arrays(path)
    found = {}
    for folder in dict.fromkeys(name.rpartition("/")[0] for name in arrays):
        kept = {name: arrays[f"{folder}/{name}"] for name in _PACKED if f"{folder}/{name}" in arrays}
        rounded = {name: kept[name].astype(np.float32) for name in kept if name.endswith(_CLASS_LOG_PROB)}
        none = {"log_prob": np.zeros(0, np.float32), _CLASS_LOG_PROB: np.zeros((0, 0), np.float32)}
        empty = dict.fromkeys(_PACKED[:2], np.zeros(0))
        found[folder] = Predictions(**empty | none | kept | rounded)
        _check(found[folder], {name: _TYPES[name] for name in (*_PACKED[:2], *kept)}, f"{path}: {folder}")
    return found


def _compress(arrays: Mapping[str, np.ndarray], real: type[np.floating[Any]] = np.float32) -> bytes:
    """Return the contents of a .npz file of these arrays, whose real numbers are stored in the type `real`."""
    buffer, smallest = io.BytesIO(), float(np.finfo(real).min)
    types = {name: _TYPES[name.rpartition("/")[2]] for name in arrays}
    stored: dict[str, Any] = {
        name: array.clip(smallest).astype(real) if types[name] is np.float32 else array.astype(types[name])
        for name, array in arrays.items()
    }
    np.savez_compressed(buffer, **stored)
    return buffer.getvalue()


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            # members that are not arrays are read as bytes
            return {name: np.asarray(file[name]) for name in file.files}
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # a damaged archive raises many types: zip, zlib, array header
        reason = format_error(error, 200)
        raise MetricsError(f"{path}: expected predictions, received something else ({reason})") from None


def read_predictions(path: str | os.PathLike[str]) -> Predictions:
    """Read a file of :func:`write_predictions`.

    Raises:
        Diverged: the run diverged, as the metrics.json beside the file says.
        MetricsError: the file has other contents, or marks a divergence that no metrics.json beside it describes.
        FormatError: the file marks a divergence, and the metrics.json beside it is damaged.
        OSError: the file cannot be read.
    """
    arrays = _read_arrays(Path(path))
    if not arrays:  # the mark of a divergence
        raise_if_marked(Path(path).with_name(METRICS_FILE))
        raise MetricsError(f"{path}: the run diverged: there are no predictions")
    if arrays.keys() != _TYPES.keys():
        raise MetricsError(f"{path}: expected {', '.join(_TYPES)}, received {', '.join(arrays)}")
    predictions = Predictions(**arrays)
    _check(predictions, _TYPES, path)
    return predictions


def _check(predictions: Predictions, types: Mapping[str, type], path: str | os.PathLike[str]) -> None:
    """Raise MetricsError unless types and shapes are correct, numbers finite and classes in range."""
    images, classes = predictions.label.size, (0, *predictions.class_log_prob.shape)[-1]
    class_limit = classes or np.iinfo(np.int32).max
    for name, dtype in types.items():
        array: np.ndarray = getattr(predictions, name)
        count = predictions.validation_label.size if name in _VALIDATION else images
        shape = (count, classes) if name.endswith(_CLASS_LOG_PROB) else (count,)
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            expected, received = f"{np.dtype(dtype)} of {shape}", f"{array.dtype} of {array.shape}"
            raise MetricsError(f"{path}: {name}: expected {expected}, received {received}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise MetricsError(f"{path}: {name}: expected finite numbers, received NaN or infinity")
        if array.dtype.kind == "i" and count and not 0 <= array.min() <= array.max() < class_limit:
            received = f"{array.min()} to {array.max()}"
            raise MetricsError(f"{path}: {name}: expected classes from 0 to {class_limit - 1}, received {received}")
