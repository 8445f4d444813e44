"""Identity, paths and serialization of runs.

A run is one flow trained under one prior with one λ and one seed, or a classifier trained on its generated or augmented
images, or on real images without a flow. :class:`Run` identifies a run, :class:`Layout` gives all paths below
results/{preset}. Rules use the same path templates, with Snakemake's wildcards instead of values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

NO_FLOW = "no_flow"
"""Folder that replaces those of flow, prior and λ for classifiers trained on real images without a flow."""

BASELINE = {
    "data": "baseline",
    "isotropic": "baseline-isotropic",
    "identity": "baseline-identity",
    "random": "baseline-random",
}
"""Folders for λ = 0, which keeps the initial Gaussians, by `start`; shared by all priors fitted by fixed point."""

REFITS = ("moments", "prior")
"""How the Gaussians of a trained flow are estimated again: by the class moments of its training latents, or by the
prior's own method. The prior of such a run is named in paths with this suffix, as in `fpi+moments`."""

SPLITS = "{dataset}/{splits}"
"""Train, validation and test images; `splits` is COMMON_SPLITS, or SPLITS_OF_SEED if each seed has its own."""
COMMON_SPLITS = "splits"
SPLITS_OF_SEED = "splits/seed={seed}"
SPLITS_PATTERN = r"splits(?:/seed=(?:0|[1-9][0-9]*))?"
"""Regular expression that matches COMMON_SPLITS and SPLITS_OF_SEED."""
INITIAL = "{dataset}/{flow}/initial/{start}/seed={seed}"
"""Initial state of the training, shared by all λ and by all priors with this `start`."""
SOURCE = "{flow}/{prior}/lambda={weight}"
FLOW_RUN = "{dataset}/{flow}/{prior}/lambda={weight}/seed={seed}"
FIT = f"{FLOW_RUN}/fit"
GENERATED = f"{FLOW_RUN}/generated/temperature={{temperature}}"
AUGMENTED = f"{FLOW_RUN}/{{variants}}"
VARIANTS = {"nfa": "augmented", "noise": "augmented_noise"}
"""Folders of variants of the training images, by augmentation: latents are mixed (`nfa`) or displaced by `noise`."""
GENERATED_CLASSIFIER = f"{FLOW_RUN}/{{classifier}}"
"""A classifier trained on generated images, tested at the temperature that is best on the validation split."""
CANDIDATE = f"{GENERATED_CLASSIFIER}/temperature={{temperature}}"
"""A classifier trained at one temperature; the best one on the validation split is tested as GENERATED_CLASSIFIER."""
REAL_CLASSIFIER = "{dataset}/{source}/seed={seed}/{classifier}/augmentation={augmentation}"
"""A classifier trained on real images; `source` is NO_FLOW, or the flow, prior and λ that augment them (SOURCE)."""
TRAINED_CLASSIFIER = f"{REAL_CLASSIFIER}/trained"
"""Weights of a classifier trained on real images, before it is tested."""

METRICS_FILE = "metrics.json"
"""Identity, metrics and settings of a run; or, if it diverged, when and where."""
PREDICTIONS_FILE = "predictions.npz"
"""Label, predicted class and log-probability of every test image."""
LOG_FILE = "log.csv"
"""Losses, accuracies and duration of a training, one row per epoch."""
INITIAL_FILES = {
    "state": "state.safetensors",
    "prior": "prior.safetensors",
    "statistics": "statistics.safetensors",
}
"""An initial state: flow and optimizer, its Gaussians, and statistics of the training latents."""
MODEL_FILES = {"config": "config.json", "weights": "model.safetensors"}
"""A trained flow with its prior and classes, in the folder `model` of its run."""
IMAGE_SET_FILES = {"images": "images.npy", "labels": "labels.npy", "meta": "meta.json"}
"""A split of a data set, or generated or augmented images."""

LOGS_FOLDER: Final = "logs"
BENCHMARKS_FOLDER: Final = "benchmarks"
"""Folders of what jobs print, and of their time and memory; their subfolders are named as those of the results."""
COLLECTED_FOLDER, TABLES_FOLDER, FIGURES_FOLDER = "metrics", "tables", "figures"
"""Folders of the metrics collected for each table, and of what is made from them."""

RESERVED_FOLDERS = ("fit", "model", "generated", *VARIANTS.values(), "samples", "tracking")
"""Folders beside those of classifiers; no classifier may have such a name."""
RESERVED_NAMES = {
    "flows": (COMMON_SPLITS, NO_FLOW),
    "priors": ("initial", *BASELINE.values()),
    "classifiers": RESERVED_FOLDERS,
}
"""Names that no flow, prior or classifier may have, by group of settings."""

WEIGHT_PATTERN = r"[0-9][0-9.e+-]*"
"""Regular expression of λ and temperatures in paths."""


def format_weight(weight: float | str) -> str:
    """Format λ for paths, with one text for equal values (`1e4`, `10000` and `1.0e4` are all `10000`)."""
    value = float(weight)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def name_refitted(prior: str, refit: str | None) -> str:
    """Return the name in paths of a prior whose Gaussians are estimated again; the name itself if `refit` is None."""
    return prior if refit is None else f"{prior}+{refit}"


def split_refitted(prior: str) -> tuple[str, str | None]:
    """Return the two arguments of :func:`name_refitted` from its result."""
    name, _, refit = prior.rpartition("+")
    return (name, refit) if name and refit in REFITS else (prior, None)


def parse_splits_seed(splits: str) -> int | None:
    """Return the seed to which the value of the wildcard `splits` belongs; None: all seeds share the splits."""
    seed = splits.removeprefix(COMMON_SPLITS).removeprefix("/seed=")
    return int(seed) if seed else None


def get_variants_folder(augmentation: str) -> str | None:
    """Return the folder of an augmentation's variants, the wildcard of AUGMENTED; None: it has no variants."""
    return VARIANTS.get(augmentation.rpartition("+")[2])


def name_in_files(field: str) -> str:
    """Return the key of a field in files: `lambda` for `weight`, as `lambda` is a keyword of Python."""
    return "lambda" if field == "weight" else field


def name_in_python(key: str) -> str:
    """Return the field of a key in files, the inverse of :func:`name_in_files`."""
    return "weight" if key == "lambda" else key


@dataclass(frozen=True, kw_only=True)
class Run:
    """The identity of a run.

    Attributes:
        dataset: name of the data set in the config.
        seed: seed of everything random.
        flow: name of the flow; None: a run without a flow.
        prior: name of the prior in paths; for λ = 0 of a prior fitted by fixed point, its baseline (`BASELINE`); with a
            suffix if its Gaussians are estimated again after the training (`REFITS`).
        weight: λ; 0 for a prior without one.
        classifier: name of the classifier; None: the run trains the flow.
        augmentation: augmentations of a classifier's real training images, such as `standard+nfa`; None: these images
            are generated.
    """

    dataset: str
    seed: int
    flow: str | None = None
    prior: str | None = None
    weight: float | None = None
    classifier: str | None = None
    augmentation: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ValueError(f"run: seed: expected a whole number from 0 to 2⁶³ − 1, received {self.seed!r}")
        flow_fields = (self.flow, self.prior, self.weight)
        if None in flow_fields and flow_fields != (None, None, None):
            raise ValueError(f"run: expected flow, prior and weight together or none of them, received {flow_fields}")
        if self.flow is None and (self.classifier is None or self.augmentation is None):
            raise ValueError("run: expected a flow, or a classifier with an augmentation, received neither")
        if self.classifier is None and self.augmentation is not None:
            raise ValueError(f"run: expected no augmentation without a classifier, received {self.augmentation!r}")
        if self.weight is not None and not (0 <= self.weight < math.inf):
            raise ValueError(f"run: weight: expected a finite number of at least 0, received {self.weight}")

    @property
    def template(self) -> str:
        """Template of the folder, below results/{preset}."""
        if self.classifier is None:
            return FLOW_RUN
        return GENERATED_CLASSIFIER if self.augmentation is None else REAL_CLASSIFIER

    @property
    def folder(self) -> str:
        """Folder of the run, below results/{preset}."""
        return self.template.format(**self.wildcards)

    @property
    def wildcards(self) -> dict[str, str]:
        """Values of the wildcards of the templates."""
        values = {
            "dataset": self.dataset,
            "flow": self.flow,
            "prior": self.prior,
            "weight": None if self.weight is None else format_weight(self.weight),
            "seed": str(self.seed),
            "classifier": self.classifier,
            "augmentation": self.augmentation,
        }
        known = {name: value for name, value in values.items() if value is not None}
        return known | {"source": NO_FLOW if self.flow is None else SOURCE.format(**known)}

    @classmethod
    def from_wildcards(cls, wildcards: Mapping[str, str]) -> Run:
        """Create a run from the wildcards of its template."""
        known = dict(wildcards)
        source = known.get("source", NO_FLOW)
        if source != NO_FLOW:
            known["flow"], known["prior"], weight = source.split("/")
            known["weight"] = weight.removeprefix("lambda=")
        names = {field.name for field in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in known.items() if name in names}
        values["seed"] = int(known["seed"])
        if "weight" in values:
            values["weight"] = float(values["weight"])
        return cls(**values)

    @property
    def of_flow(self) -> Run:
        """Run of the flow whose samples or variants a classifier is trained on."""
        return Run(dataset=self.dataset, seed=self.seed, flow=self.flow, prior=self.prior, weight=self.weight)

    @property
    def of_training(self) -> Run:
        """Run of the flow whose training this run uses: that without the estimation of the Gaussians after it."""
        return self if self.prior is None else replace(self.of_flow, prior=split_refitted(self.prior)[0])

    def to_json(self) -> dict[str, Any]:
        """Return the run as a JSON object, with λ as `lambda`."""
        return {name_in_files(name): value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Run:
        """Create a run from the result of :meth:`to_json`.

        Raises:
            ValueError: the record is not the identity of a run.
        """
        values = {name_in_python(name): value for name, value in record.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"run: expected the identity of a run, received {dict(record)} ({error})") from None

    def row(self) -> dict[str, Any]:
        """Return the cells of the run in a table of results; missing values are empty."""
        return {
            "dataset": self.dataset,
            "flow": self.flow or "",
            "prior": self.prior or "",
            "lambda": math.nan if self.weight is None else self.weight,
            "seed": self.seed,
            "classifier": self.classifier or "",
            "augmentation": self.augmentation or "",
        }


def parse_run_folder(folder: str) -> Run | None:
    """Return the run of a folder below results/{preset}; None: the folder is not that of a run."""
    for pattern in _RUN_FOLDERS:
        found = pattern.fullmatch(folder)
        if found and found.groupdict().get("classifier") not in RESERVED_FOLDERS:
            try:
                return Run.from_wildcards(found.groupdict())
            except ValueError:  # λ or the seed is invalid
                return None
    return None


@cache
def compile_template(template: str) -> re.Pattern[str]:
    """Convert a path template to a regular expression with its wildcards as named groups."""
    values = {
        "splits": SPLITS_PATTERN,
        "weight": WEIGHT_PATTERN,
        "seed": "[0-9]+",
        "temperature": WEIGHT_PATTERN,
        "source": f"{NO_FLOW}|[^/.][^/]*/[^/.][^/]*/lambda={WEIGHT_PATTERN}",
    }
    literal = re.split(r"{(\w+)}", template)
    parts = [
        f"(?P<{part}>{values.get(part, '[^/.][^/]*')})" if index % 2 else re.escape(part)
        for index, part in enumerate(literal)
    ]
    return re.compile("".join(parts))


_RUN_FOLDERS = [compile_template(template) for template in (FLOW_RUN, REAL_CLASSIFIER, GENERATED_CLASSIFIER)]


@dataclass(frozen=True)
class Layout:
    """Paths below a folder results/{preset}.

    Args:
        root: the folder results/{preset}.
    """

    root: Path

    def path(self, template: str, **values: str) -> str:
        """Return the path of a template below the root; without values, its wildcards are kept."""
        return f"{self.root.as_posix()}/{template.format(**values) if values else template}"

    def of(self, run: Run) -> str:
        """Return the folder of a run."""
        return f"{self.root.as_posix()}/{run.folder}"

    def mirror_path(self, folder: str, kind: Literal["logs", "benchmarks"], file: str) -> str:
        """Return the path of a log or benchmark file: `folder` with `kind` inserted after the root, then `file`."""
        root = self.root.as_posix()
        return f"{root}/{kind}{folder.removeprefix(root)}/{file}"
