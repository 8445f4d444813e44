"""Every knob of the project, typed, frozen and grouped by stage.

The defaults are the settings of the paper's CIFAR10 runs. `config.yaml` writes them out, overlays its presets on them,
and :func:`resolve` makes one :class:`Config` of it. Nothing heavy is imported here: the command line and the Snakefile
read this module before they know whether there is anything to do.
"""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]

Split = Literal["train", "validation", "test"]
Start = Literal["data", "identity"]
Source = Literal["digits", "fashion_mnist", "cifar10", "cifar100", "imagefolder"]
Stage = Literal[
    "prepare_data",
    "start_flow",
    "fit_prior",
    "train_flow",
    "evaluate",
    "generate",
    "train_classifier",
    "test_classifier",
    "collect",
    "table",
    "figure",
    "benchmark",
]

BASELINE: dict[str, str] = {"data": "baseline", "identity": "baseline-identity"}
"""Where λ = 0 lives: the initial Gaussians, kept, are the same for every prior with that start."""


class ConfigError(ValueError):
    """A setting that is missing, unknown or out of range; its message is one line and names the key."""


class Settings(BaseModel):
    """A group of knobs: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FlowConfig(Settings):
    """Architecture of the flow, one entry a level."""

    num_flows: list[PositiveInt] = [8, 8, 8]
    """flows (actnorm, 1×1 convolution, coupling) in each level"""
    num_blocks: list[NonNegativeInt] = [8, 4, 2]
    """residual blocks of each level's coupling nets"""
    hidden_channels: list[PositiveInt] = [128, 128, 128]
    """width of each level's coupling nets"""
    coupling: Literal["matrix_exponential", "affine", "additive"] = "matrix_exponential"
    """y₂ = e^{S(x₁)} x₂ + b(x₁) with a full matrix S, a diagonal one, or S = 0"""

    @model_validator(mode="after")
    def _one_entry_a_level(self) -> FlowConfig:
        lengths = {len(self.num_flows), len(self.num_blocks), len(self.hidden_channels)}
        if len(lengths) != 1 or not self.num_flows:
            raise ValueError(
                "num_flows, num_blocks and hidden_channels need one entry a level each, "
                f"received {len(self.num_flows)}, {len(self.num_blocks)} and {len(self.hidden_channels)} entries"
            )
        return self


class TrainingConfig(Settings):
    """Training of the flow by maximum likelihood."""

    epochs: PositiveInt = 500
    """passes over the training set, those before the fit included"""
    fit_after_epochs: NonNegativeInt = 1
    """epochs under the initial prior, before the fit"""
    batch_size: PositiveInt = 512
    learning_rate: PositiveFloat = 1e-2
    """Adamax"""
    warmup_steps: NonNegativeInt = 1000
    """steps of linear warm-up"""
    gradient_clip: NonNegativeFloat = 0.0
    """largest norm of the gradient; 0: not clipped, as in the released runs"""
    ema_decay: Fraction = 0.9999
    """largest decay of the exponential moving average: min(ema_decay, 1 − (1 + step)^−ema_power)"""
    ema_power: PositiveFloat = 0.75
    initialization_images: PositiveInt = 1024
    """augmented training images of the data-dependent initialisation"""
    augmentation: Literal["none", "flip", "shift", "released"] = "released"
    """released: flip, colour jitter, rotation by ±12°, crop; shift: pad and crop, for digits"""
    grey_noise: NonNegativeFloat = 0.05
    """grey images get U[0, grey_noise) of the value range besides the dequantisation noise"""
    evaluate_every: PositiveInt = 5
    """epochs between two evaluations on the validation split"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    workers: NonNegativeInt = 0
    """processes that read and augment images; 0: the training process does"""
    checkpoint_minutes: PositiveFloat = 10.0
    """time between two checkpoints of a running training"""

    @model_validator(mode="after")
    def _fit_before_the_end(self) -> TrainingConfig:
        if self.fit_after_epochs >= self.epochs:
            raise ValueError(
                f"fit_after_epochs must be smaller than epochs, received {self.fit_after_epochs} and {self.epochs}"
            )
        return self


class PriorConfig(Settings):
    """How the class Gaussians are fitted by fixed-point iteration (λ stands with the experiment)."""

    start: Start = "data"
    """initial Gaussians: class means with the class variances, or with identity covariances"""
    alpha: PositiveFloat = 10.0
    """α of Eq. 3"""
    scale: Literal["pairwise", "average"] = "pairwise"
    """π of Eq. 3: each pair's own KLD (Eq. 9), or the mean over all pairs (Eq. 10)"""
    update: Literal["released", "exact"] = "released"
    """Eqs. 5-7 as the released code computes them, or as they follow from Eq. 4"""
    fit_mean: bool = True
    fit_variance: bool = True
    isotropic_mean_update: bool = True
    """released update: the mean update replaces covariances by their average over dimensions"""
    pooled_mean_gaps: bool = True
    """released update: Σ_i Δ_ij² stands where Δ_ij² belongs in A"""
    tolerance: PositiveFloat = 0.1
    """stop when no class's mean and no class's variance moves by more (Euclidean norm)"""
    max_iterations: PositiveInt = 1000


class DatasetConfig(Settings):
    """Where a data set comes from, how it is split, and what is special about it."""

    source: Source = "digits"
    folder: Path | None = None
    """folder that holds the files already (torchvision's layout, or split/class/image); none: downloaded"""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """share of the training images held out, stratified, for every choice that is made"""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """share held out for the test where the source has no test split of its own (digits)"""
    split_seed: NonNegativeInt = 0
    train_per_class: PositiveInt | None = None
    """training images kept a class, validation not counted; none: all"""
    test_per_class: PositiveInt | None = None
    image_size: PositiveInt | None = None
    """imagefolder: side that images are resized and centre-cropped to; none: they must all have one size"""
    flip: bool = True
    """mirrored images are still of their class (not so for digits)"""
    overrides: dict[Literal["flow", "training", "generation", "resnet18"], dict[str, Any]] = {}
    """settings of other stages that differ for this data set"""

    @field_validator("folder", mode="before")
    @classmethod
    def _variables_stand_for_paths(cls, folder: Any) -> Any:
        if not isinstance(folder, str):
            return folder
        expanded = os.path.expandvars(folder)
        missing = re.search(r"\$\{?\w+\}?", expanded)
        if missing:
            raise ValueError(f"environment variable {missing[0]} is not set")
        return Path(expanded).expanduser()


class GenerationConfig(Settings):
    """Labelled images drawn from the flow."""

    temperatures: Annotated[list[PositiveFloat], Field(min_length=1)] = [0.7, 0.8, 0.9, 1.0, 1.1, 1.2]
    """compared on the validation split; the best one is tested"""
    per_class: PositiveInt = 5000
    batch_size: PositiveInt = 1000


class ClassifierConfig(Settings):
    """Training of a ResNet18 on generated images, real ones, or both."""

    epochs: PositiveInt = 30
    batch_size: Annotated[int, Field(ge=2)] = 100
    learning_rate: PositiveFloat = 1e-3
    """where the one-cycle schedule starts"""
    max_learning_rate: PositiveFloat = 0.1
    momentum: Fraction = 0.9
    weight_decay: NonNegativeFloat = 5e-4
    train_on: Literal["generated", "real", "both"] = "generated"
    crop_padding: NonNegativeInt = 4
    """random crops of images padded by so many pixels"""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    workers: NonNegativeInt = 0
    """processes that read and augment images; 0: the training process does"""


class EvaluationConfig(Settings):
    """NF-Acc, top-5 and bits/dim."""

    batch_size: PositiveInt = 1000


class Experiment(Settings):
    """One data set under one prior, for a list of λ: a row of a table for each."""

    dataset: Name
    prior: Name = "fpi"
    lambdas: Annotated[list[NonNegativeFloat], Field(min_length=1)]
    """weights λ of the repulsion (Eq. 4); 0 keeps the initial Gaussians"""
    classifier: Literal["resnet18"] | None = "resnet18"
    """what learns from the generated images; none: NF-Acc only"""


class Table(Settings):
    """A table of the paper as a list of experiments."""

    title: str = ""
    experiments: Annotated[list[Experiment], Field(min_length=1)]


class Resources(Settings):
    """What one job of a stage may use."""

    gpu: NonNegativeInt = 0
    threads: PositiveInt = 1
    mem_mb: PositiveInt = 4000
    runtime: PositiveInt = 60
    """minutes"""


class Config(Settings):
    """All settings of one preset."""

    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [1999]
    datasets: dict[Name, DatasetConfig] = {}
    flow: FlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    priors: dict[Name, PriorConfig] = {}
    evaluation: EvaluationConfig = EvaluationConfig()
    generation: GenerationConfig = GenerationConfig()
    resnet18: ClassifierConfig = ClassifierConfig()
    tables: dict[Literal["table2"], Table] = {}
    resources: dict[Stage, Resources] = {}

    def for_dataset(self, dataset: str) -> Config:
        """The settings with the data set's own overrides laid over them."""
        overrides: Mapping[Any, Any] = self.datasets[dataset].overrides
        return Config.model_validate(merge(self.model_dump(), overrides)) if overrides else self

    @model_validator(mode="after")
    def _names_are_defined(self) -> Config:
        for table, experiment in self.experiments():
            for kind, name, known in (
                ("dataset", experiment.dataset, self.datasets),
                ("prior", experiment.prior, self.priors),
            ):
                if name not in known:
                    raise ValueError(f"tables.{table}: unknown {kind} '{name}'{_suggest(name, known)}")
        for name in self.priors:
            if name in BASELINE.values():
                raise ValueError(f"priors.{name}: this name is kept for λ = 0")
        return self

    def experiments(self) -> Iterator[tuple[str, Experiment]]:
        """All pairs (table, experiment)."""
        for name, table in self.tables.items():
            for experiment in table.experiments:
                yield name, experiment


class ConfigFile(Config):
    """The form of config.yaml: the paper's settings, and presets that differ from them."""

    preset: Name = "demo"
    results: Path = Path("results")
    presets: dict[Name, dict[str, Any]] = {}


def merge(base: Mapping[str, Any], *overlays: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base` with the overlays laid over it: mappings are merged key by key, anything else is replaced."""
    merged = copy.deepcopy(dict(base))
    for overlay in overlays:
        for key, value in overlay.items():
            known = merged.get(key)
            both_mappings = isinstance(known, Mapping) and isinstance(value, Mapping)
            merged[key] = merge(known, value) if both_mappings else copy.deepcopy(value)  # type: ignore[arg-type]
    return merged


def resolve(raw: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> tuple[str, Path, Config]:
    """The name, the results folder and the settings of the chosen preset.

    Args:
        raw: the content of config.yaml.
        overrides: what the user set on top of it (`--config`, `--configfile`); it wins over the preset.

    Raises:
        ConfigError: a key is unknown, a value has the wrong type or range, or a name is not defined.
    """
    overrides = overrides or {}
    merged = merge(raw, overrides)
    try:
        file = ConfigFile.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(explain(error, ConfigFile)) from None
    if file.preset not in file.presets:
        raise ConfigError(f"preset: unknown preset '{file.preset}'{_suggest(file.preset, file.presets)}")
    own = {"preset", "results", "presets"}
    base, above = ({key: value for key, value in part.items() if key not in own} for part in (merged, overrides))
    where = f"preset {file.preset}: "
    try:
        config = Config.model_validate(merge(base, file.presets[file.preset], above))
        for name in config.datasets:
            where = f"preset {file.preset}: datasets.{name}.overrides: "
            config.for_dataset(name)
    except ValidationError as error:
        raise ConfigError(f"{where}{explain(error, Config)}") from None
    return file.preset, file.results, config


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One fault of a validation error in one line: key, what was expected, what was received.

    An unknown key comes first: it may be why another one is missing.
    """
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    if fault["loc"] and fault["loc"][-1] == "[key]":
        *parents, key, _ = fault["loc"]
        known = re.findall(r"'([^']+)'", fault.get("ctx", {}).get("expected", ""))
        return f"unknown key '{'.'.join(map(str, (*parents, key)))}'{_suggest(str(key), known)}"
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{where}'{_suggest(str(fault['loc'][-1]), _fields_at(model, fault['loc'][:-1]))}"
    message = fault["msg"].removeprefix("Value error, ")
    received = "" if fault["type"] in ("value_error", "missing") else f", received {fault['input']!r}"
    return f"{where}: {message}{received}" if where else f"{message}{received}"


def format_weight(weight: float | str) -> str:
    """λ as it stands in paths: one text for equal values (`1e4`, `10000` and `1.0e4` are all `10000`)."""
    value = float(weight)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def json_schema() -> dict[str, Any]:
    """JSON schema of config.yaml; a preset may set whatever stands at the top level."""
    schema = ConfigFile.model_json_schema()
    preset = {key: value for key, value in schema["properties"].items() if key not in ("preset", "results", "presets")}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    presets = schema["properties"]["presets"]
    presets["patternProperties"] = {
        pattern: {"type": "object", "additionalProperties": False, "properties": preset}
        for pattern in presets["patternProperties"]
    }
    return schema


def _suggest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """« (did you mean 'x'?)», or the names there are, or nothing."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if nearest:
        return f" (did you mean '{nearest[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model that stands at `location` inside `model`."""
    current: Any = model
    for part in location:
        if isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation if part in current.model_fields else None
            if type(None) in get_args(current):  # Model | None
                current = _last_argument(current)
        else:  # dict[str, Model], list[Model]
            current = _last_argument(current)
    while current is not None and not (isinstance(current, type) and issubclass(current, BaseModel)):
        current = _last_argument(current)
    return list(current.model_fields) if current is not None else []


def _last_argument(annotation: Any) -> Any:
    return next((a for a in reversed(get_args(annotation)) if a is not type(None)), None)
