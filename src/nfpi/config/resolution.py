"""From config.yaml, a preset and what the user passes to one :class:`Config`, or to one line that names the fault."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, Field, Tag, ValidationError, model_validator

from nfpi.config.base import BASELINE, ConfigError, LocalPath, Name, NonNegativeInt, Settings
from nfpi.config.cluster import Cluster
from nfpi.config.experiments import Experiment, Figures, Table
from nfpi.config.settings import (
    ClassifierConfig,
    DatasetConfig,
    EvaluationConfig,
    FlowConfig,
    GenerationConfig,
    NfaConfig,
    PriorConfig,
    Resources,
    Stage,
    TrainingConfig,
)

NO_FLOW = "real"
"""Where classifiers of real images lie that no flow has a part in, in place of a prior's name."""


RESERVED = ("flow", "fit", "generated", "augmented")
"""Folders beside those of classifiers."""


class Config(Settings):
    """All settings of one preset."""

    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [1999]
    datasets: dict[Name, DatasetConfig] = {}
    flow: FlowConfig = FlowConfig()
    training: TrainingConfig = TrainingConfig()
    priors: dict[Name, PriorConfig] = {}
    evaluation: EvaluationConfig = EvaluationConfig()
    generation: GenerationConfig = GenerationConfig()
    nfa: NfaConfig = NfaConfig()
    classifiers: dict[Name, ClassifierConfig] = {}
    tables: dict[Name, Table] = {}
    figures: Figures = Figures()
    resources: dict[Stage, Resources] = {}
    cluster: Cluster | None = None
    """where jobs are submitted to; profiles/ has some. None: they run on this machine"""

    def for_dataset(self, dataset: str) -> Config:
        """The settings with the data set's own overrides laid over them."""
        overrides: Mapping[Any, Any] = self.datasets[dataset].overrides
        return Config.model_validate(merge(self.model_dump(), overrides)) if overrides else self

    @model_validator(mode="after")
    def _names_are_defined(self) -> Config:
        named: list[tuple[str, Settings]] = [
            (f"tables.{table}", experiment) for table, experiment in self.experiments()
        ]
        named += [(f"figures.{name}", figure) for name, figure in self.figures if figure is not None]
        for where, settings in named:
            for kind, known in (("dataset", self.datasets), ("prior", self.priors), ("classifier", self.classifiers)):
                name = getattr(settings, kind, None)
                if name is not None and name not in known:
                    raise ValueError(f"{where}: unknown {kind} '{name}'{suggest(name, known)}")
        for name, classifier in self.classifiers.items():
            other = classifier.start_from
            if classifier.train_on != "real" and (other is not None or classifier.pretrained):
                raise ValueError(f"classifiers.{name}: start_from and pretrained are for classifiers of real images")
            if other is not None and other not in self.classifiers:
                unknown = f"'{other}'{suggest(other, self.classifiers)}"
                raise ValueError(f"classifiers.{name}.start_from: unknown classifier {unknown}")
            if other is not None and self.classifiers[other].start_from is not None:
                expected = f"classifiers.{name}.start_from: expected one that starts from no other"
                raise ValueError(f"{expected}, received '{other}'")
        if self.figures.residuals and self.priors[self.figures.residuals.prior].method != "fixed_point":
            raise ValueError(f"figures.residuals: prior '{self.figures.residuals.prior}' is not fitted by iteration")
        for name in self.priors:
            if name in (*BASELINE.values(), NO_FLOW):
                raise ValueError(f"priors.{name}: this name is kept")
        for name in self.classifiers:
            if name in RESERVED:
                raise ValueError(f"classifiers.{name}: this name is kept")
        for table, experiment in self.experiments():
            if experiment.classifier is None:
                continue
            needed = "needs a prior, and its augmentation is standard"
            fits = experiment.prior is not None and experiment.augmentation == "standard"
            if self.classifiers[experiment.classifier].train_on == "real":
                needed = "needs a prior and lambdas exactly where its augmentation has nfa"
                fits = (experiment.prior is not None) == experiment.uses_nfa
            if not fits:
                raise ValueError(f"tables.{table}: classifier '{experiment.classifier}' {needed}")
        return self

    @model_validator(mode="after")
    def _jobs_fit_the_cluster(self) -> Config:
        longest = self.cluster.longest if self.cluster else None
        for stage, line in self.resources.items():
            if longest is not None and line.runtime > longest:
                raise ValueError(
                    f"resources.{stage}.runtime: expected at most {longest} minutes, the limit of the cluster's jobs, "
                    f"received {line.runtime}"
                )
        return self

    def experiments(self) -> Iterator[tuple[str, Experiment]]:
        """All pairs (table, experiment)."""
        for name, table in self.tables.items():
            for experiment in table.experiments:
                yield name, experiment


class _Choice(Settings):
    """What config.yaml says besides settings."""

    preset: Name = "demo"
    results: LocalPath = Path("results")
    presets: dict[Name, dict[str, Any]] = {}


class ConfigFile(_Choice, Config):
    """The form of config.yaml: the paper's settings, and presets that differ from them."""


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
    overrides = _with_nulls(overrides or {})
    merged = merge(raw, overrides)
    own = _Choice.model_fields.keys()
    try:  # the rest may be complete on top of the preset only
        file = _Choice.model_validate({key: merged[key] for key in own & merged.keys()})
    except ValidationError as error:
        raise ConfigError(explain(error, _Choice)) from None
    if file.preset not in file.presets:
        raise ConfigError(f"preset: unknown preset '{file.preset}'{suggest(file.preset, file.presets)}")
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


def _with_nulls(value: Any) -> Any:
    """The same, with none for the text `null`: Snakemake's --config reads what stands in braces as texts."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in value]
    return None if value == "null" else value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One fault of a validation error in one line: key, what was expected, what was received.

    An unknown key comes first: it may be why another one is missing.
    """
    faults = error.errors(include_url=False)
    fault = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    location = [part for index, part in enumerate(fault["loc"]) if not _is_tag(fault["loc"], index)]
    if location and location[-1] == "[key]":
        *parents, key, _ = location
        known = re.findall(r"'([^']+)'", fault.get("ctx", {}).get("expected", ""))
        return f"unknown key '{'.'.join(map(str, (*parents, key)))}'{suggest(str(key), known)}"
    where = ".".join(map(str, location))
    if fault["type"] == "union_tag_invalid":
        return f"{where}.method: expected {fault['ctx']['expected_tags']}, received '{fault['ctx']['tag']}'"
    if fault["type"] == "extra_forbidden":
        return f"unknown key '{where}'{suggest(str(location[-1]), _fields_at(model, fault['loc'][:-1]))}"
    message = fault["msg"].removeprefix("Value error, ")
    received = "" if fault["type"] in ("value_error", "missing") else f", received {fault['input']!r}"
    return f"{where}: {message}{received}" if where else f"{message}{received}"


def leaf_prior(name: str, prior: PriorConfig, weight: float) -> str:
    """Where runs of a prior lie: λ = 0 of a fixed point is nothing but its start, which others share."""
    return BASELINE[prior.start] if prior.method == "fixed_point" and weight == 0 else name


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


def suggest(name: str, known: Mapping[str, Any] | list[str]) -> str:
    """« (did you mean 'x'?)», or the names there are, or nothing."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    if nearest:
        return f" (did you mean '{nearest[0]}'?)"
    return f" (known: {', '.join(known)})" if known else ""


def _is_tag(location: tuple[int | str, ...], index: int) -> bool:
    """Whether a part of an error's location is no key, but the method that says which settings a prior has."""
    return index >= 2 and location[index - 2] == "priors" and location[index] in ("fixed_point", "gradient_descent")


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model that stands at `location` inside `model`."""
    current: Any = model
    for part in location:
        arms = {
            tag.tag: arm for arm in _arms(current) for tag in getattr(arm, "__metadata__", ()) if isinstance(tag, Tag)
        }
        if part in arms:  # one of several models
            current = get_args(arms[part])[0]
        elif isinstance(current, type) and issubclass(current, BaseModel):
            current = current.model_fields[str(part)].annotation if part in current.model_fields else None
            if type(None) in get_args(current):  # Model | None
                current = _last_argument(current)
        elif get_origin(current) is Annotated:
            current = get_args(current)[0]
        else:  # dict[str, Model], list[Model]
            current = _last_argument(current)
    while current is not None and not (isinstance(current, type) and issubclass(current, BaseModel)):
        current = get_args(current)[0] if get_origin(current) is Annotated else _last_argument(current)
    return list(current.model_fields) if current is not None else []


def _arms(annotation: Any) -> tuple[Any, ...]:
    """The members of a union that may carry more than its types."""
    return get_args(get_args(annotation)[0]) if get_origin(annotation) is Annotated else ()


def _last_argument(annotation: Any) -> Any:
    return next((a for a in reversed(get_args(annotation)) if a is not type(None)), None)
