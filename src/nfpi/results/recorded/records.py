"""Read and write metrics.json: the metrics of a run and their provenance."""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import reprlib
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nfpi.config.base import NonNegativeFloat, NonNegativeInt, Seed
from nfpi.config.extensions import get_loaded_versions
from nfpi.runs import Run
from nfpi.runtime.divergence import Diverged, raise_divergence
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, Record, check_record, read_json_object

PACKAGES = (
    *("nfpi", "torch", "torchvision", "timm", "diffusers", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pillow"),
)
"""Packages whose versions are recorded."""


class MetricsError(ValueError):
    """A value that is not allowed in metrics.json or predictions.npz, or a damaged file; the message is one line."""


class _Metrics(Record):
    """The checked part of a `metrics.json`."""

    metrics: dict[str, float]
    n: NonNegativeInt | None = None
    validation_n: NonNegativeInt | None = None
    seed: Seed | None = None
    run: dict[str, Any] | None = None
    per_class_accuracy: list[float | None] | None = None
    seconds: NonNegativeFloat | None = None


def write_metrics(
    path: str | os.PathLike[str],
    metrics: Mapping[str, float],
    *,
    run: Run | None,
    n: int,
    seed: int,
    settings: Mapping[str, Any],
    device: str,
    seconds: float,
    validation_n: int | None = None,
    per_class_accuracy: Iterable[float] | None = None,
) -> None:
    """Write a `metrics.json` atomically.

    Args:
        path: the file.
        metrics: name → value, in the unit of the metric (:func:`nfpi.config.metric`); accuracies in percent. May be
            empty only if n = 0 and `run` is None.
        run: identity of the run; None: an intermediate result that tables do not show.
        n: number of images the values were computed on.
        seed: seed of the run.
        settings: all settings that the values depend on, as JSON values; paths are written as text.
        device: description of the device.
        seconds: wall-clock time of the stage.
        validation_n: number of validation images, on which metrics with the prefix were computed.
        per_class_accuracy: accuracy on each class in percent, (K,); NaN for a class without images.

    Raises:
        MetricsError: metrics are missing, a value is NaN or infinite, the seed is not that of the run, or the
            settings are not JSON.
    """
    if not metrics and (n or run is not None):
        raise MetricsError(f"{path}: expected at least one metric, received none")
    if run is not None and run.seed != seed:
        raise MetricsError(f"{path}: seed: expected the run's, {run.seed}, received {seed}")
    record: dict[str, Any] = {} if run is None else {"run": run.to_json()}
    record["metrics"] = {name: to_finite_float(value, f"{path}: {name}") for name, value in sorted(metrics.items())}
    if per_class_accuracy is not None:
        accuracies = map(float, per_class_accuracy)
        record["per_class_accuracy"] = [None if math.isnan(accuracy) else accuracy for accuracy in accuracies]
    record |= {} if validation_n is None else {"validation_n": validation_n}
    record |= {
        "n": int(n),
        "seed": int(seed),
        "settings": _convert_settings(settings),
        "versions": _read_versions() | get_loaded_versions(),
        "git_commit": _read_git_commit(),
        "device": str(device),
        "seconds": to_finite_float(seconds, f"{path}: seconds"),
    }
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a `metrics.json`, which has either `metrics` or `diverged`.

    Raises:
        MetricsError: the file is not a metrics.json.
        OSError: the file cannot be read.
    """
    try:
        record = read_json_object(Path(path))
        raise_divergence(record, Path(path))
        checked = check_record(_Metrics, record, Path(path), "the metrics of a run")
    except Diverged:
        return record
    except FormatError as error:
        raise MetricsError(str(error)) from None
    if not checked.metrics and checked.n != 0:
        raise MetricsError(f"{path}: expected the metrics of a run, received none")
    return record | {"metrics": checked.metrics}


def describe_divergence(diverged: Mapping[str, Any]) -> str:
    """Return e.g. `diverged: variance of class 2 at iteration 3` or `diverged: loss of the flow at step 40`.

    Args:
        diverged: value of `diverged` in a result of :func:`read_record`.
    """
    class_index = diverged["class_index"]
    of_class = "" if class_index is None else f" of class {class_index}"
    unit = "step" if diverged.get("message") else "iteration"  # only trainings record a message
    return f"diverged: {diverged['quantity']}{of_class} at {unit} {diverged['iteration']}"


def to_finite_float(value: Any, what: str) -> float:
    """Convert `value` to a float.

    Raises:
        MetricsError: `value` is not a finite number; the message calls it `what`.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise MetricsError(f"{what}: expected a finite number, received {reprlib.repr(value)}") from None
    if not math.isfinite(number):
        raise MetricsError(f"{what}: expected a finite number, received {number}")
    return number


def _convert_settings(settings: Mapping[str, Any]) -> Any:
    """Return settings as JSON values."""
    try:
        return json.loads(json.dumps(dict(settings), allow_nan=False, default=os.fspath))
    except (TypeError, ValueError) as error:
        raise MetricsError(f"settings: expected JSON values, {error}") from None


@functools.cache
def _read_versions() -> dict[str, str | None]:
    """Return versions from package metadata, without importing the packages; None for missing ones."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def _read_git_commit() -> str | None:
    """Return the commit of this package's checkout, with `-dirty` if files differ; None without git or a checkout."""
    source = Path(__file__)
    git = ["git", "-C", str(source.parent)]
    try:
        # The package may be installed within another repository: use the commit only if this file is tracked.
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], check=True, capture_output=True, timeout=30)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True, timeout=30)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=30).returncode
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head.stdout.strip()}-dirty" if changed else head.stdout.strip()
