"""Merge config.yaml, a preset and command-line overrides into one validated :class:`Config`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from nfpi.config.base import ConfigError, LocalPath, Settings, explain
from nfpi.config.claims import drop_outdated_claims
from nfpi.config.extensions import load_extensions
from nfpi.config.presets import merge, read_layers, read_settings
from nfpi.config.settings import Config


class _Choice(Settings):
    """Keys of config.yaml that are not settings of a preset."""

    preset: str = "demo"
    """stem of a file in presets/, or path of a user's own file"""
    results: LocalPath = Path("results")
    """folder of all outputs, which are in results/{preset}"""

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

    extensions: list[LocalPath] | None = None

    @classmethod
    def list_files(cls, layer: Mapping[str, Any]) -> list[Path]:
        """Return the files of a layer, in order."""
        return cls.model_validate({"extensions": layer.get("extensions")}).extensions or []


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
        dropped_claims: for each inherited claim that was dropped because the preset's tables lack one of its rows,
            what is missing.
    """

    preset: str
    results: Path
    config: Config
    dropped_claims: Mapping[str, str] = field(default_factory=dict)


def resolve(config_file: Path, presets: Path, overrides: Mapping[str, Any] | None = None) -> Resolved:
    """Load the user's extensions, and return the settings of the chosen preset.

    Args:
        config_file: config.yaml.
        presets: folder of the project's presets.
        overrides: settings given by `--config` and `--configfile`, which override the preset.

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
    name, preset = read_layers(choice.preset, presets)
    layers = [lowest, *preset, highest]
    where = f"preset {name}: "
    try:
        extensions: dict[Path, Path] = {}
        for file in (file for layer in layers for file in _Extensions.list_files(layer)):
            extensions.setdefault(file.resolve(), file)
        load_extensions(extensions.values())
        merged, dropped = drop_outdated_claims(layers, merge(*layers))
        config = Config.model_validate(merged | {"extensions": list(extensions.values())})
        for dataset in config.datasets:
            where = f"preset {name}: datasets.{dataset}.overrides: "
            config.for_dataset(dataset)
            for flow in config.flows:
                where = f"preset {name}: training of flows.{flow} on {dataset}: "
                config.resolve_training(dataset, flow)
    except ValidationError as error:
        raise ConfigError(f"{where}{explain(error)}") from None
    _check_selections(name, config)
    return Resolved(name, choice.results, config, dropped)


def _check_selections(preset: str, config: Config) -> None:
    """Raise ConfigError if a table would select λ or T on a data set without validation images (`refit`)."""
    for table, experiment in config.iterate_experiments():
        dataset, weights = experiment.dataset, experiment.weights
        if not config.datasets[dataset].refit:
            continue
        where = f"preset {preset}: tables.{table}: {dataset} has no validation images (refit) to select on: expected"
        if config.tables[table].best_only and len(weights) > 1:
            raise ConfigError(f"{where} one λ per experiment with best_only, received {len(weights)}")
        temperatures = set(config.for_dataset(dataset).generation.temperatures)
        generates = experiment.classifier is not None and not config.learns_from_real_images(experiment)
        if generates and len(temperatures) > 1:
            raise ConfigError(f"{where} one generation.temperatures for its classifier, received {len(temperatures)}")


def _parse_nulls(value: Any) -> Any:
    """Replace the string `null` by None: in `--config 'a={b: null}'`, Snakemake leaves the values in braces strings."""
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
