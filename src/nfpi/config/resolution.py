"""Merge config.yaml, a preset and command-line overrides into one validated :class:`Config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from nfpi.config.base import ALL_INHERITED, ConfigError, LocalPath, Settings, explain, suggest
from nfpi.config.claims import DIVERGENCE, drop_outdated_claims
from nfpi.config.experiments import Experiment
from nfpi.config.extensions import load_extensions
from nfpi.config.metrics import MeasuredModel, metric
from nfpi.config.presets import merge, read_layers, read_settings
from nfpi.config.settings import Config


class _Choice(Settings):
    """Keys of config.yaml that are not settings of a preset."""

    preset: str = "demo"
    """stem of a file in presets/, or path of a user's own file"""
    results: LocalPath = Path("results")
    """folder of all outputs; a preset's are in the subfolder with its name"""

    @field_validator("results")
    @classmethod
    def _check_results(cls, results: Path) -> Path:
        if {"{", "}"} & set(str(results)):
            raise ValueError(
                f"expected a path without braces, which Snakemake takes for wildcards, received '{results}'"
            )
        return results


class _Extensions(Settings):
    """Extension files of one layer of settings."""

    extensions: list[LocalPath] = []


class ConfigFile(_Choice, Config):
    """Contents of config.yaml: the paper's settings."""


class PresetFile(Config):
    """Contents of a preset: what differs from config.yaml, or from the preset that it extends."""

    extends: str | None = None
    """another preset: its name, or the path of its file relative to this one"""


@dataclass(frozen=True)
class Resolved:
    """Settings of one call of the workflow.

    Attributes:
        preset: name of the preset.
        results: folder of all results.
        config: settings.
        dropped_claims: names of inherited claims that were dropped, because the preset's tables lack a row, a λ or
            a metric that they compare, and for each name what is missing.
        file: absolute path of the preset if it is a user's file; None: it is one of the project.
    """

    preset: str
    results: Path
    config: Config
    dropped_claims: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None


class _Fault(ConfigError):
    """A fault of the settings; its message is one line that names the key, but not the file or option."""


def resolve(
    config_file: Path,
    presets: Path,
    overrides: Mapping[str, Any] | None = None,
    *,
    overrides_name: str = "--config",
) -> Resolved:
    """Load the user's extensions, and return the settings of the chosen preset.

    Args:
        config_file: config.yaml.
        presets: folder of the project's presets.
        overrides: settings given by `--config` and `--configfile`, which override the preset.
        overrides_name: the options that gave them, for messages.

    Raises:
        ConfigError: unknown key, wrong type, value out of range, or undefined name.
    """
    overrides = _parse_nulls(overrides or {})
    raw = read_settings(config_file)
    merged = merge(raw, overrides)
    own = _Choice.model_fields.keys()
    try:
        choice = _Choice.model_validate({key: merged[key] for key in own & merged.keys()})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    lowest, highest = ({key: value for key, value in part.items() if key not in own} for part in (raw, overrides))
    file, preset = read_layers(choice.preset, presets)
    layers = [lowest, *preset, highest]
    try:
        config, dropped = _validate(layers)
    except _Fault as fault:
        parts = {str(config_file): layers[:1], f"preset {file.stem}": layers[:-1]}
        where = next((name for name, part in parts.items() if _find_fault(part) == str(fault)), overrides_name)
        raise ConfigError(f"{where}: {fault}") from None
    is_of_project = file.parent == presets.resolve()
    return Resolved(file.stem, choice.results, config, dropped, None if is_of_project else file)


def _list_extensions(layers: Iterable[Mapping[str, Any]]) -> list[Path]:
    """Return the extension files of all layers, each once."""
    files: dict[Path, Path] = {}
    for layer in layers:
        for file in _Extensions.model_validate({"extensions": layer.get("extensions") or []}).extensions:
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _validate(layers: Sequence[Mapping[str, Any]]) -> tuple[Config, dict[str, str]]:
    """Load the extensions; return the settings of merged layers, and the claims that were dropped.

    Raises:
        _Fault: the settings are invalid.
        ConfigError: an extension is missing or faulty.
    """
    try:
        extensions = _list_extensions(layers)
    except ValidationError as error:
        raise _Fault(explain(error)) from None
    load_extensions(extensions)
    where = ""
    try:
        merged, dropped = drop_outdated_claims(layers, merge(*layers))
        config = Config.model_validate(merged | {"extensions": extensions})
        for dataset in config.datasets:
            where = f"datasets.{dataset}.overrides: "
            _check_overridden_names(config, dataset)
            config.for_dataset(dataset)
            for flow in config.flows:
                where = f"training of flows.{flow} on {dataset}: "
                config.resolve_training(dataset, flow)
        where = ""
        _check_selections(config)
        _check_metrics(config, layers)
    except (ValidationError, ConfigError) as error:
        raise _Fault(f"{where}{explain(error) if isinstance(error, ValidationError) else error}") from None
    return config, dropped


def _find_fault(layers: Sequence[Mapping[str, Any]]) -> str:
    """Return the fault of merged layers, empty if there is none."""
    try:
        _validate(layers)
    except ConfigError as fault:
        return str(fault)
    return ""


def _check_overridden_names(config: Config, dataset: str) -> None:
    """Raise ConfigError if a data set overrides a backbone or classifier that does not exist."""
    overrides: Mapping[Any, Any] = config.datasets[dataset].overrides
    for group in ("flows", "classifiers"):
        known = getattr(config, group)
        for name in overrides.get(group, {}):
            if name not in known:
                raise ConfigError(f"{group}: unknown {group[:-1]} '{name}'{suggest(str(name), known)}")


def _check_selections(config: Config) -> None:
    """Raise ConfigError if a table would select λ or T on a data set without validation images (`refit`)."""
    for table, experiment in config.iterate_experiments():
        dataset, weights = experiment.dataset, experiment.weights
        if not config.datasets[dataset].refit:
            continue
        where = f"tables.{table}: {dataset} has no validation images (refit) to select on: expected"
        if config.tables[table].best_only and len(weights) > 1:
            raise ConfigError(f"{where} one λ per experiment with best_only, received {len(weights)}")
        temperatures = set(config.for_dataset(dataset).generation.temperatures)
        generates = experiment.classifier is not None and not config.learns_from_real_images(experiment)
        if generates and len(temperatures) > 1:
            raise ConfigError(
                f"{where} a single value of generation.temperatures for its classifier, received {len(temperatures)}"
            )


def _check_metrics(config: Config, layers: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError unless some row of each table has each of its metrics.

    If a table's metrics are inherited or the defaults, and a later layer of settings replaces its experiments, columns
    of metrics that no row has are left out instead; at least one column must remain.
    """
    for table, settings in config.tables.items():
        models = {model for experiment in settings.experiments for model in _list_models(config, experiment)}
        # `model` is None for metrics that are computed for each kind of model; DIVERGENCE is only compared by claims
        missing = [name for name in settings.metrics if metric(name).model not in {None, *models} or name == DIVERGENCE]
        if missing and (len(missing) == len(settings.metrics) or _are_chosen_for_experiments(table, layers)):
            expected = "expected metrics that some row of the table has"
            raise ConfigError(f"tables.{table}.metrics: {expected}, received {missing[0]}")


def _list_models(config: Config, experiment: Experiment) -> list[MeasuredModel]:
    """Return the kinds of models whose metrics the rows of an experiment show."""
    if config.learns_from_real_images(experiment):
        return ["real"]
    return ["flow"] if experiment.classifier is None else ["flow", "generated"]


def _are_chosen_for_experiments(table: str, layers: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the metrics of a table were set in the layer that set its experiments, or in a later one."""
    last = dict.fromkeys(("metrics", "experiments"), -1)
    for index, layer in enumerate(layers):
        tables = layer.get("tables") or {}
        block = tables.get(table)
        if ALL_INHERITED in tables or (table in tables and block is None):
            last = dict.fromkeys(last, -1)
        last |= {key: index for key in last if key in (block or {})}
    return last["metrics"] >= last["experiments"]


def _parse_nulls(value: Any) -> Any:
    """Replace the string `null` by None: of `--config 'a={b: null}'`, Snakemake makes `{"a": {"b": "null"}}`."""
    if isinstance(value, Mapping):
        return {key: _parse_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_parse_nulls(item) for item in value]
    return None if value == "null" else value


def build_json_schema() -> dict[str, Any]:
    """Return the JSON schema of config.yaml and presets."""
    schema = ConfigFile.model_json_schema()
    extends = PresetFile.model_json_schema()["properties"]["extends"]
    schema["properties"]["extends"] = extends
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
