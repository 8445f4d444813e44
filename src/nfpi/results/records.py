"""`metrics.json`: what one run measured, with all that is needed to know where the values came from."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nfpi.config.base import NonNegativeFloat, NonNegativeInt, Seed
from nfpi.runs import Run
from nfpi.runtime.files import write_atomically
from nfpi.runtime.formats import FormatError, Record, check_divergence, check_record, read_json_object

PACKAGES = (
    *("nfpi", "torch", "torchvision", "lightning-fabric", "timm", "diffusers", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pillow"),
)
"""Packages whose versions stand beside every value."""


class MetricsError(ValueError):
    """A metric that is no finite number, or a file that is no metrics.json; the message is one line."""


class _Metrics(Record):
    """What is needed of a `metrics.json`."""

    metrics: dict[str, float]
    n: NonNegativeInt | None = None
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
    per_class_accuracy: Iterable[float] | None = None,
) -> None:
    """Write a `metrics.json`, whole or not at all.

    Args:
        path: the file.
        metrics: name → value, in the unit of the metric's entry (:func:`nfpi.config.metric`); accuracies in percent. A
            step that measured nothing, as there was no image (n = 0), has none.
        run: whose metrics they are; None: a step on the way to a run's, which no table shows.
        n: number of images the values were computed on.
        seed: of the run.
        settings: all that the values depend on, as JSON knows it (paths are written as text).
        device: what it ran on, as text.
        seconds: wall-clock time of the stage.
        per_class_accuracy: percentage of each class, (K,), in the order of the classes; NaN where a class has no image.

    Raises:
        MetricsError: there is no metric though there are images, a value is NaN or infinite, the seed is not the run's,
            or the settings are not JSON.
    """
    if not metrics and (n or run is not None):
        raise MetricsError(f"{path}: expected at least one metric, received none")
    if run is not None and run.seed != seed:
        raise MetricsError(f"{path}: seed: expected {run.seed}, that of the run, received {seed}")
    record: dict[str, Any] = {} if run is None else {"run": run.to_json()}
    record["metrics"] = {name: finite(value, f"{path}: {name}") for name, value in sorted(metrics.items())}
    if per_class_accuracy is not None:
        accuracies = map(float, per_class_accuracy)
        record["per_class_accuracy"] = [None if math.isnan(accuracy) else accuracy for accuracy in accuracies]
    record |= {
        "n": int(n),
        "seed": int(seed),
        "settings": json.loads(_canonical(settings)),
        "versions": _versions(),
        "git_commit": _git_commit(),
        "device": str(device),
        "seconds": finite(seconds, f"{path}: seconds"),
        "config_hash": config_hash(settings),
    }
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_record(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a `metrics.json`: its values are numbers, or it has `diverged` in their place.

    Raises:
        MetricsError: it is something else; the message names the file.
        OSError: it cannot be read.
    """
    try:
        record = read_json_object(Path(path))
        if "diverged" in record:
            check_divergence(record, Path(path))
            return record
        found = check_record(_Metrics, record, Path(path), "the metrics of a run")
    except FormatError as error:
        raise MetricsError(str(error)) from None
    if not found.metrics and found.n != 0:
        raise MetricsError(f"{path}: expected the metrics of a run, received none")
    return record | {"metrics": found.metrics}


def config_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the settings as canonical JSON: keys sorted, no blanks, UTF-8.

    Raises:
        MetricsError: the settings are not JSON (NaN and infinity are not).
    """
    return hashlib.sha256(_canonical(settings).encode()).hexdigest()


def finite(value: Any, what: str) -> float:
    """`value` as a float.

    Raises:
        MetricsError: it is no finite number; `what` names it.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise MetricsError(f"{what}: expected a finite number, received {value!r}") from None
    if not math.isfinite(number):
        raise MetricsError(f"{what}: expected a finite number, received {number}")
    return number


def _canonical(settings: Mapping[str, Any]) -> str:
    """Equal settings, equal text."""
    try:
        return json.dumps(
            dict(settings),
            sort_keys=True,
            separators=(",", ":"),
            ensure_ascii=False,
            allow_nan=False,
            default=os.fspath,
        )
    except (TypeError, ValueError) as error:
        raise MetricsError(f"settings: expected JSON values, {error}") from None


@functools.cache
def _versions() -> dict[str, str | None]:
    """Versions from the packages' metadata, none of them imported; None where one is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def _git_commit() -> str | None:
    """The commit of this package's checkout, with `-dirty` where files differ from it; None without git or checkout."""
    source = Path(__file__)
    git = ["git", "-C", str(source.parent)]
    try:
        # An environment may lie inside somebody else's repository: only a tracked file speaks for its commit.
        subprocess.run([*git, "ls-files", "--error-unmatch", source.name], check=True, capture_output=True, timeout=30)
        head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True, timeout=30)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=30).returncode
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head.stdout.strip()}-dirty" if changed else head.stdout.strip()
