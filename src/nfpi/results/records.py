"""What a leaf of the workflow measured: written as `metrics.json`, collected into one long table.

A leaf is a run's folder under ``results/{preset}``: that of a flow, ``{dataset}/{prior}/lambda={λ}/seed={seed}``; a
classifier's below it, ``…/{classifier}`` of generated images or ``…/{classifier}/augmentation={augmentation}`` of real
ones; or that of a classifier that no flow has a part in, ``{dataset}/real/seed={seed}/{classifier}/augmentation=…``.
Accuracies are in percent. A fit that diverged is a result too: its file has `diverged` in place of values.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

from nfpi.config.resolution import NO_FLOW, format_weight
from nfpi.runtime.files import write_atomically

PACKAGES = (
    *("nfpi", "torch", "torchvision", "lightning-fabric", "timm", "diffusers", "numpy", "scipy", "scikit-learn"),
    *("pandas", "pillow"),
)
"""Packages whose versions stand beside every value."""

COLUMNS = {
    "dataset": "str",
    "prior": "str",
    "lambda": "float64",
    "seed": "int64",
    "stage": "str",
    "augmentation": "str",
    "metric": "str",
    "value": "float64",
    "n": "Int64",
    "status": "str",
    "run": "str",
}
"""Columns of the collected table, with their types.

`stage` is « flow » or a classifier's name; a classifier without a flow has the prior « real » and no λ;
`augmentation` is that of a classifier of real images.
"""

_NAME = r"[A-Za-z0-9][\w.+-]*"
LEAF = re.compile(
    rf"(?P<run>(?P<dataset>{_NAME})/(?:(?P<real>{NO_FLOW})|(?P<prior>{_NAME})"
    r"/lambda=(?P<weight>\d+(?:\.\d+)?(?:e[+-]?\d+)?))/seed=(?P<seed>0|[1-9]\d*)"
    rf"(?:/(?P<stage>{_NAME})(?:/augmentation=(?P<augmentation>[a-z+]+))?)?)/metrics\.json",
    re.ASCII,
)
"""A leaf's path relative to results/{preset}; without a stage of its own it is the flow's."""

EXPECTED_PATH = (
    "{dataset}/{prior}/lambda={λ}/seed={seed}[/{classifier}[/augmentation={augmentation}]]/metrics.json, "
    f"or {{dataset}}/{NO_FLOW}/seed={{seed}}/…"
)


class MetricsError(ValueError):
    """A metric that is no finite number, or a file that is no leaf's; the message is one line."""


def write_metrics(
    path: str | os.PathLike[str],
    metrics: Mapping[str, float],
    *,
    n: int,
    seed: int,
    settings: Mapping[str, Any],
    device: str,
    seconds: float,
    diverged: Mapping[str, Any] | None = None,
) -> None:
    """Write a leaf's `metrics.json`, whole or not at all.

    Args:
        metrics: name → value; accuracies in percent, bits_per_dim in bits.
        n: number of images the values were computed on.
        seed: seed of the run.
        settings: all the run depends on, as JSON knows it (paths are written as text).
        device: what it ran on, as text.
        seconds: wall-clock time of the stage.
        diverged: in place of metrics, where the fixed-point iteration ran away: `iteration`, `class_index`,
            `quantity` and `weight` (λ). Its numbers may be infinite: they are written as text then.

    Raises:
        MetricsError: a value is NaN or infinite, the settings are not JSON, or there are both metrics and a
            divergence, or neither.
    """
    if diverged is not None and metrics:
        raise MetricsError(f"{path}: a fit that diverged has no metrics, received {', '.join(sorted(metrics))}")
    if diverged is None and not metrics:
        raise MetricsError(f"{path}: expected at least one metric, received none")
    record: dict[str, Any] = {
        "metrics": {name: _finite(value, f"{path}: {name}") for name, value in sorted(metrics.items())}
    }
    if diverged is not None:
        record["diverged"] = {key: _writable(value) for key, value in diverged.items()}
        describe_divergence(record["diverged"], str(path))
    record |= {
        "n": int(n),
        "seed": int(seed),
        "settings": json.loads(_canonical(settings)),
        "versions": _versions(),
        "git_commit": _git_commit(),
        "device": str(device),
        "seconds": _finite(seconds, f"{path}: seconds"),
        "config_hash": config_hash(settings),
    }
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def config_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 (hexadecimal) of the settings as canonical JSON: keys sorted, no blanks, UTF-8.

    Raises:
        MetricsError: the settings are not JSON (NaN and infinity are not).
    """
    return hashlib.sha256(_canonical(settings).encode()).hexdigest()


def describe_divergence(diverged: Mapping[str, Any], where: str) -> str:
    """« diverged: variance of class 2 at iteration 3 ».

    Raises:
        MetricsError: `iteration` or `quantity` is missing; `where` names the file.
    """
    missing = [key for key in ("quantity", "iteration") if diverged.get(key) is None]
    if missing:
        raise MetricsError(f"{where}: a divergence needs its {' and '.join(missing)}, received {sorted(diverged)}")
    class_index = diverged.get("class_index")
    of_class = "" if class_index is None else f" of class {class_index}"
    return f"diverged: {diverged['quantity']}{of_class} at iteration {diverged['iteration']}"


def collect(paths: Iterable[str | os.PathLike[str]], root: str | os.PathLike[str]) -> pd.DataFrame:
    """All values of all leaves in long form, one row a value, the same whatever the order of `paths`.

    A leaf that diverged is one row with an empty metric and value; its `status` says where it ran away. Other
    rows have status « ok ».

    Args:
        paths: `metrics.json` files.
        root: the folder results/{preset} they lie under; what a run is, is read from the path below it.

    Raises:
        MetricsError: a path does not fit, a file is not JSON, or a value is no finite number.
        OSError: a file cannot be read.
    """
    leaves = {Path(path).absolute() for path in paths}
    rows = [row for path in sorted(leaves) for row in _read_leaf(path, Path(root).absolute())]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return frame.sort_values(
        ["dataset", "prior", "lambda", "seed", "stage", "augmentation", "metric"], ignore_index=True
    )


def write_csv(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table as CSV, atomically: floats so that they read back the same, unknown cells empty."""
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n"))


def read_csv(path: str | os.PathLike[str], columns: Mapping[str, str] = COLUMNS) -> pd.DataFrame:
    """Read a table that :func:`write_csv` wrote; text stays text (a data set may be called « NA »).

    Args:
        path: the CSV file.
        columns: the columns that must be there, with their types; other columns stay as text.

    Raises:
        MetricsError: a column is missing, or a cell has another type.
    """
    frame = pd.read_csv(path, dtype="str", keep_default_na=False)
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise MetricsError(f"{path}: expected column {missing[0]}, received {', '.join(map(str, frame.columns))}")
    for name, kind in columns.items():
        try:
            frame[name] = _typed(frame[name], kind)
        except (ValueError, TypeError, KeyError) as error:
            raise MetricsError(f"{path}: column {name}: expected {kind}, {error}") from None
    return frame


def _typed(cells: pd.Series, kind: str) -> pd.Series:
    """A column of text in its type; empty cells are unknown, where the type knows that."""
    if kind == "str":
        return cells
    if kind == "bool":
        return cells.map({"True": True, "False": False}).astype("boolean").astype("bool")
    if kind == "float64":  # Python's own parser gives back the float that was written, to the last bit
        return pd.Series([float(cell) if cell else math.nan for cell in cells], index=cells.index, dtype=kind)
    return pd.Series([int(cell) if cell else None for cell in cells], index=cells.index, dtype="Int64").astype(kind)


def _read_leaf(path: Path, root: Path) -> list[dict[str, Any]]:
    """The rows of one `metrics.json`."""
    relative = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    match = LEAF.fullmatch(relative)
    if match is None:
        raise MetricsError(f"{relative}: expected {EXPECTED_PATH} under {root}")
    weight = match["weight"]
    if weight is not None and weight != format_weight(weight):
        raise MetricsError(f"{relative}: expected lambda={format_weight(weight)}, one text for equal values")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MetricsError(f"{path}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise MetricsError(f"{path}: expected a JSON object, received {type(record).__name__}")
    n = record.get("n")
    if n is not None and not isinstance(n, int):
        raise MetricsError(f"{path}: n: expected a whole number, received {n!r}")
    identity = {
        "dataset": match["dataset"],
        "prior": match["prior"] or NO_FLOW,
        "lambda": math.nan if weight is None else float(weight),
        "seed": int(match["seed"]),
        "stage": match["stage"] or "flow",
        "augmentation": match["augmentation"] or "",
        "n": n,
        "run": match["run"],
    }
    if record.get("diverged"):
        status = describe_divergence(record["diverged"], str(path))
        return [identity | {"metric": "", "value": math.nan, "status": status}]
    metrics = record.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        raise MetricsError(f"{path}: expected 'metrics' with at least one value, or 'diverged'")
    return [
        identity | {"metric": name, "value": _finite(value, f"{path}: {name}"), "status": "ok"}
        for name, value in metrics.items()
    ]


def _finite(value: Any, what: str) -> float:
    """`value` as a float, or an error that names it."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise MetricsError(f"{what}: expected a finite number, received {value!r}") from None
    if not math.isfinite(number):
        raise MetricsError(f"{what}: expected a finite number, received {number}")
    return number


def _writable(value: Any) -> Any:
    """JSON has no infinity, but the number that ran away may be one."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


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
    """Versions from the packages' metadata, none of them imported; null where one is not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


@functools.cache
def _git_commit() -> str | None:
    """The commit of this package's checkout, « -dirty » where files differ from it; none without git or checkout."""
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
