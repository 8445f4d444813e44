"""Runs in a folder of results, as recorded by their metrics.json, and their metrics in one long table."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.metrics import MISMATCH_LIMIT, VALIDATION_PREFIX
from nfpi.results.recorded.records import MetricsError, describe_divergence, read_record
from nfpi.runs import COMMON_SPLITS, METRICS_FILE, SPLITS, SPLITS_OF_SEED, Run, parse_run_folder
from nfpi.runtime.chains import Chain
from nfpi.runtime.faults import format_error
from nfpi.runtime.manifests import SUFFIX, ManifestError, find_product

if TYPE_CHECKING:
    import pandas as pd

OUTDATED = (
    "made with other settings or from other images than the present ones, as `nfpi verify` tells: `snakemake all` "
    "makes it again, if its seed is in `seeds`"
)
"""Explanation of an outdated run."""
MISMATCH_ADVICE = (
    "Where a flow does not follow its prior, samples at temperature 1 are drawn where no image lies; longer training, "
    "a smaller λ or a refit helps (docs/equations.md#does-the-flow-follow-its-prior)."
)
"""What follows for a flow that does not follow its prior, and what helps."""

_NOT_SETTINGS = ("compared", "data.classes")
"""Dotted names of a record's `settings` that hold measurements or data, not settings."""
_DATA = "data"
"""Input of the stages that measure a run: the splits of a data set."""
_MANIFEST = f"metrics{SUFFIX}"


@dataclass(frozen=True)
class RecordedRun:
    """A run and its metrics.json.

    Attributes:
        run: identity of the run, as its folder says.
        folder: path of the folder.
        record: contents of metrics.json; empty if it cannot be read.
        fault: one line that says why metrics.json cannot be read, or that it contradicts its manifest; else empty.
        data: digest of the content of the data set that it was made from; empty without a manifest, as in evidence.
        outdated: why the metrics, or what they were made from, are not what they should be, in one line
            (:class:`nfpi.runtime.chains.Chain`); else empty.
    """

    run: Run
    folder: Path
    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    fault: str = ""
    data: str = ""
    outdated: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics; empty if the run diverged or the file is damaged."""
        return dict(self.record.get("metrics", {}))

    @property
    def divergence(self) -> str:
        """E.g. `diverged: variance of class 2 at iteration 3`; empty if the run did not diverge."""
        diverged = self.record.get("diverged")
        return "" if diverged is None else describe_divergence(diverged)

    @property
    def mismatch(self) -> str:
        """E.g. `does not follow its prior: mismatch 1.15 bits/dim, β 0.18`; empty for other runs."""
        if self.metrics.get("mismatch", 0.0) <= MISMATCH_LIMIT:
            return ""
        beta = f", β {self.metrics['beta']:.2f}" if "beta" in self.metrics else ""
        return f"does not follow its prior: mismatch {self.metrics['mismatch']:.2f} bits/dim{beta}"

    @property
    def settings(self) -> dict[str, str]:
        """All settings, by dotted names; values as JSON."""
        return dict(_flatten(self.record.get("settings", {})))


def find_runs(root: Path, chain: Chain | None = None) -> list[RecordedRun]:
    """Find all runs in a folder results/{preset}; in each data set, those without a flow come last.

    Damaged files do not raise; their runs have a `fault`.

    Args:
        root: the folder.
        chain: says which runs are outdated; None: by their inputs only, not by their settings.
    """
    chain = chain or Chain()
    runs = [_read_run(path, run) for path, run in _find_metrics_files(root)]
    faults = (chain.find_first_fault(item.folder / _MANIFEST) for item in runs)
    runs = [
        replace(item, outdated=fault.replace(f"{root.as_posix()}/", ""))
        for item, fault in zip(runs, faults, strict=True)
    ]
    return sort_runs(runs)


def sort_runs(runs: Iterable[RecordedRun]) -> list[RecordedRun]:
    """Sort runs: flows before their classifiers, baselines before fitted priors, those without a flow last."""
    return sorted(runs, key=lambda item: _make_sort_key(item.run))


def list_splits(root: Path, run: Run) -> list[Path]:
    """Return the folders where the splits of a run may lie: those of its seed, and those that all seeds share."""
    names = (SPLITS_OF_SEED.format(seed=run.seed), COMMON_SPLITS)
    return [root / SPLITS.format(dataset=run.dataset, splits=splits) for splits in names]


def _find_metrics_files(root: Path) -> Iterator[tuple[Path, Run]]:
    for folder in {path.parent for name in (METRICS_FILE, _MANIFEST) for path in root.rglob(name)}:
        run = parse_run_folder(folder.relative_to(root).as_posix())
        if run is not None:
            yield folder / METRICS_FILE, run


def _read_run(path: Path, run: Run) -> RecordedRun:
    try:
        product = find_product(path)  # raises if the file does not match its manifest
        inputs = product.manifest.inputs if product else []
        data = next((found.content for found in inputs if found.name == _DATA), "")
        return RecordedRun(run, path.parent, _read_record(run, path), data=data)
    except (ManifestError, MetricsError, OSError) as error:
        return RecordedRun(run, path.parent, fault=format_error(error))


def _make_sort_key(run: Run) -> tuple[Any, ...]:
    """Return the key of :func:`sort_runs`."""
    is_fitted = run.weight is not None and run.weight > 0
    flow = (run.dataset, run.flow is None, run.flow or "", is_fitted, run.prior or "", run.weight or 0.0, run.seed)
    return (*flow, run.classifier or "", run.augmentation or "")


def _flatten(settings: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(settings, Mapping):
        return
    for key, value in settings.items():
        if f"{prefix}{key}" in _NOT_SETTINGS:
            continue
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False)


# ---- one table of all metrics -----------------------------------------------------------------------------------

_NAMES = ("dataset", "flow", "prior", "lambda", "seed", "classifier", "augmentation")
IDENTITY = dict.fromkeys(_NAMES, "str") | {"lambda": "float64", "seed": "int64"}
"""Columns of :meth:`nfpi.runs.Run.row` and their types; a property that a run lacks is empty."""

COLLECTED_COLUMNS = IDENTITY | {"metric": "str", "value": "float64", "n": "Int64", "status": "str", "run": "str"}
"""Columns of the collected table and their types.

Each row has the identity of a run, one of its values, the number `n` of images that it was measured on, the status
(`ok`, or how the run diverged), and the folder of the run.
"""


def collect(runs: Iterable[Run], root: str | os.PathLike[str]) -> pd.DataFrame:
    """Collect all values of all runs in long form, one row per value, independent of the order of `runs`.

    A diverged run has one row with an empty metric and value, and its `status` describes the divergence.

    Args:
        runs: runs whose metrics are read.
        root: the folder results/{preset} that contains them.

    Returns:
        A frame with the columns :data:`COLLECTED_COLUMNS`.

    Raises:
        MetricsError: a file is not a metrics.json, or belongs to another run.
        OSError: a file is missing or cannot be read.
    """
    return make_frame({run: _read_record(run, Path(root) / run.folder / METRICS_FILE) for run in set(runs)})


def make_frame(records: Mapping[Run, Mapping[str, Any]]) -> pd.DataFrame:
    """Make the frame of :func:`collect` from the contents of each run's metrics.json."""
    import pandas as pd

    rows = [row for run, record in records.items() for row in make_rows(run, record)]
    frame = pd.DataFrame(rows, columns=list(COLLECTED_COLUMNS)).astype(COLLECTED_COLUMNS)
    return frame.sort_values([*IDENTITY, "metric"], ignore_index=True)


def _read_record(run: Run, path: Path) -> dict[str, Any]:
    """Read the metrics.json of a run, and check that it belongs to this run."""
    record = read_record(path)
    if "run" in record:
        try:
            received = Run.from_json(record["run"])
        except (ValueError, AttributeError):
            raise MetricsError(f"{path}: expected the identity of a run, received {record['run']!r}") from None
        if received != run:
            raise MetricsError(f"{path}: expected the metrics of {run.folder}, received those of {received.folder}")
    elif "diverged" not in record:
        raise MetricsError(f"{path}: expected the identity of the run (--identity), received none")
    return record


def make_rows(run: Run, record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of one run in the frame of :func:`collect`."""
    identity = run.row() | {"n": record.get("n"), "run": run.folder, "status": "ok"}
    if "diverged" in record:
        status = describe_divergence(record["diverged"])
        return [identity | {"metric": "", "value": math.nan, "status": status}]
    on_validation = {"n": record.get("validation_n")}
    return [
        identity | {"metric": name, "value": value} | (on_validation if name.startswith(VALIDATION_PREFIX) else {})
        for name, value in sorted(record["metrics"].items())
    ]
