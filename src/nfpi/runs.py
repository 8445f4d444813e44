"""What a run is, where it lies, and how it is written.

A run is one flow trained under one prior with one λ and one seed, and the classifiers that learn from it; or a
classifier that no flow has a part in. All that identifies it stands in :class:`Run`, all paths below results/{preset}
in :class:`Layout`. Rules use the same templates with Snakemake's wildcards in the place of values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

NO_FLOW = "no_flow"
"""Where classifiers of real images lie that no flow has a part in, in the place of a flow, a prior and λ."""

BASELINE = {
    "data": "baseline",
    "isotropic": "baseline-isotropic",
    "identity": "baseline-identity",
    "random": "baseline-random",
}
"""Where λ = 0 of the fixed point lies: the initial Gaussians, kept, are the same for every prior with that `start`."""

SPLITS = "{dataset}/{splits}"
"""Train, validation and test images; `splits` is COMMON_SPLITS, or SPLITS_OF_SEED where each seed has its own."""
COMMON_SPLITS = "splits"
SPLITS_OF_SEED = "splits/seed={seed}"
SPLITS_PATTERN = r"splits(?:/seed=(?:0|[1-9][0-9]*))?"
"""Either of them, as a regular expression."""
INITIAL = "{dataset}/{flow}/initial/{start}/seed={seed}"
"""The initial state that all λ and all methods share."""
SOURCE = "{flow}/{prior}/lambda={weight}"
FLOW_RUN = "{dataset}/{flow}/{prior}/lambda={weight}/seed={seed}"
FIT = f"{FLOW_RUN}/fit"
GENERATED = f"{FLOW_RUN}/generated/temperature={{temperature}}"
AUGMENTED = f"{FLOW_RUN}/{{variants}}"
VARIANTS = {"nfa": "augmented", "noise": "augmented_noise"}
"""Folders of variants of the training images, by the augmentation that has them: latents mixed, or with noise."""
GENERATED_CLASSIFIER = f"{FLOW_RUN}/{{classifier}}"
"""A classifier of generated images, tested at the temperature that is best on the validation split."""
CANDIDATE = f"{GENERATED_CLASSIFIER}/temperature={{temperature}}"
REAL_CLASSIFIER = "{dataset}/{source}/seed={seed}/{classifier}/augmentation={augmentation}"
"""A classifier of real images; its source is NO_FLOW, or the flow, prior and λ that augment them (SOURCE)."""
TRAINED_CLASSIFIER = f"{REAL_CLASSIFIER}/trained"
"""Its weights, before it is tested."""

RESERVED_FOLDERS = ("fit", "model", "generated", *VARIANTS.values(), "samples", "tracking")
"""Folders beside those of classifiers."""
RESERVED_PRIORS = ("initial", *BASELINE.values())
RESERVED_FLOWS = (COMMON_SPLITS, NO_FLOW)

WEIGHT_PATTERN = r"[0-9][0-9.e+-]*"
"""λ and temperatures in paths, as a regular expression."""


def format_weight(weight: float | str) -> str:
    """λ as it is written in paths: one text for equal values (`1e4`, `10000` and `1.0e4` are all `10000`)."""
    value = float(weight)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def seed_of_splits(splits: str) -> int | None:
    """The seed whose runs alone see these splits, by the wildcard of SPLITS; None: those of all seeds do."""
    seed = splits.removeprefix(COMMON_SPLITS).removeprefix("/seed=")
    return int(seed) if seed else None


def variants_of(augmentation: str) -> str | None:
    """The folder of the variants that an augmentation has, the wildcard of AUGMENTED; None: it has none."""
    return VARIANTS.get(augmentation.rpartition("+")[2])


def name_in_files(field: str) -> str:
    """λ is `lambda` in files, which Python keeps for itself."""
    return "lambda" if field == "weight" else field


def name_in_python(key: str) -> str:
    """The field that a key of a file stands for."""
    return "weight" if key == "lambda" else key


@dataclass(frozen=True, kw_only=True)
class Run:
    """The identity of a run.

    Attributes:
        dataset: name in the config.
        seed: of everything random.
        flow: name of the backbone; None: no flow has a part in it.
        prior: name of the prior as it lies on disk: λ = 0 of a fixed point is a baseline that others share.
        weight: λ; 0 for a prior without one.
        classifier: name; None: the flow itself.
        augmentation: of a classifier of real images; None: it learned from generated ones.
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
        of_flow = (self.flow, self.prior, self.weight)
        if None in of_flow and of_flow != (None, None, None):
            raise ValueError(f"run: expected flow, prior and weight together or none of them, received {of_flow}")
        if self.flow is None and (self.classifier is None or self.augmentation is None):
            raise ValueError("run: without a flow it has a classifier of real images")
        if self.classifier is None and self.augmentation is not None:
            raise ValueError("run: an augmentation is a classifier's")
        if self.weight is not None and not (0 <= self.weight < math.inf):
            raise ValueError(f"run: weight: expected a finite number of at least 0, received {self.weight}")

    @property
    def template(self) -> str:
        """Where runs of its kind lie, below results/{preset}."""
        if self.classifier is None:
            return FLOW_RUN
        return GENERATED_CLASSIFIER if self.augmentation is None else REAL_CLASSIFIER

    @property
    def folder(self) -> str:
        """Where it lies, below results/{preset}."""
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
        """The run whose templates these wildcards fill."""
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
        """The flow that a classifier learned from, or whose variants augmented its images."""
        return Run(dataset=self.dataset, seed=self.seed, flow=self.flow, prior=self.prior, weight=self.weight)

    def to_json(self) -> dict[str, Any]:
        """As files and commands have it; λ is `lambda` there."""
        return {
            name_in_files(field.name): getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) is not None
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Run:
        """The run of a :meth:`to_json`.

        Raises:
            ValueError: the record is not the identity of a run.
        """
        values = {name_in_python(name): value for name, value in record.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"run: expected the identity of a run, received {dict(record)} ({error})") from None

    def row(self) -> dict[str, Any]:
        """Its cells in a table of results; what it does not have is empty."""
        return {
            "dataset": self.dataset,
            "flow": self.flow or "",
            "prior": self.prior or "",
            "lambda": math.nan if self.weight is None else self.weight,
            "seed": self.seed,
            "classifier": self.classifier or "",
            "augmentation": self.augmentation or "",
        }


def run_of_folder(folder: str) -> Run | None:
    """The run that fills this folder below results/{preset}; None: it is another folder."""
    for pattern in _FOLDERS_OF_RUNS:
        found = pattern.fullmatch(folder)
        if found and found.groupdict().get("classifier") not in RESERVED_FOLDERS:
            try:
                return Run.from_wildcards(found.groupdict())
            except ValueError:  # λ or the seed is none
                return None
    return None


def _pattern(template: str) -> re.Pattern[str]:
    """A template as a regular expression with its wildcards as named groups."""
    values = {
        "weight": WEIGHT_PATTERN,
        "seed": "[0-9]+",
        "source": f"{NO_FLOW}|[^/]+/[^/]+/lambda={WEIGHT_PATTERN}",
    }
    literal = re.split(r"{(\w+)}", template)
    parts = [
        f"(?P<{part}>{values.get(part, '[^/]+')})" if index % 2 else re.escape(part)
        for index, part in enumerate(literal)
    ]
    return re.compile("".join(parts))


_FOLDERS_OF_RUNS = [_pattern(template) for template in (FLOW_RUN, REAL_CLASSIFIER, GENERATED_CLASSIFIER)]


@dataclass(frozen=True)
class Layout:
    """Paths below one results/{preset}.

    Args:
        root: that folder; in rules, the templates below it keep their wildcards.
    """

    root: Path

    def path(self, template: str, **values: str) -> str:
        """A template of this module below the root, with its wildcards filled where they are given."""
        return f"{self.root.as_posix()}/{template.format(**values) if values else template}"

    def of(self, run: Run) -> str:
        """Folder of a run."""
        return f"{self.root.as_posix()}/{run.folder}"

    def beside(self, folder: str, kind: Literal["logs", "benchmarks"], file: str) -> str:
        """A file that does not lie among results: logs/… or benchmarks/…, with the folder's own path below it."""
        root = self.root.as_posix()
        return f"{root}/{kind}{folder.removeprefix(root)}/{file}"
