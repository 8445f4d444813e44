"""Merge config.yaml, a preset and command-line overrides into one validated :class:`Config`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nfpi.config.base import ConfigError, LocalPath, Settings, find_fault, suggest
from nfpi.config.claims import DIVERGENCE, has_rows
from nfpi.config.experiments import Experiment
from nfpi.config.extensions import load_extensions
from nfpi.config.metrics import find_network, metric
from nfpi.config.presets import ALL_INHERITED, REMOVABLE, Layer, drop_removed, merge, read_layers, read_settings
from nfpi.config.settings import Config


class _Choice(Settings):
    """Keys of config.yaml that are not settings of a preset."""

    preset: str = "demo"
    """stem of a file in presets/, or path of a user's own file"""
    results: LocalPath = Path("results")
    """folder of all outputs; a preset's are in the subfolder with its name"""


class SettingsFile(_Choice, Config):
    """Contents of config.yaml, or of a preset that overrides it."""

    extends: str | None = None
    """only in a preset: another one, by its name or the path of its file relative to this one"""


@dataclass(frozen=True)
class Resolved:
    """Settings of one call of the workflow.

    Attributes:
        preset: name of the preset.
        results: folder of all results.
        config: settings.
        file: absolute path of the preset if it is a user's file; None: it is one of the project.
    """

    preset: str
    results: Path
    config: Config
    file: Path | None = None


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
    own = _Choice.model_fields.keys()
    try:
        choice = _Choice.model_validate({key: value for key, value in {**raw, **overrides}.items() if key in own})
    except ValidationError as error:
        raise find_fault(error) from None
    lowest, highest = ({key: value for key, value in part.items() if key not in own} for part in (raw, overrides))
    file, preset = read_layers(choice.preset, presets)
    _check_results(choice.results / file.stem)
    layers = [Layer(str(config_file), lowest), *preset, Layer(overrides_name, highest)]
    try:
        config = _validate(layers)
    except (ValidationError, ConfigError) as error:
        fault = _as_config_error(error)
        raise ConfigError(f"{_find_layer(layers, fault.key)}: {fault}", fault.key) from None
    is_of_project = file.parent == presets.resolve()
    return Resolved(file.stem, choice.results, config, None if is_of_project else file)


def _check_results(root: Path) -> None:
    """Raise ConfigError if commands would not take the path of the results for one path, or it is not for a folder."""
    if "\n" in str(root) or str(root).startswith("-"):
        raise ConfigError(f"results: expected a path without line breaks and a hyphen in front, received {str(root)!r}")
    try:
        other = next((place for place in (root, *root.parents) if place.exists() and not place.is_dir()), None)
    except OSError as error:  # a folder that the user may not enter
        raise ConfigError(f"results: {error.filename}: {error.strerror}") from None
    if other is not None:
        raise ConfigError(f"results: expected a folder, received {other}, which is none")


def _as_config_error(error: ValidationError | ConfigError) -> ConfigError:
    return find_fault(error) if isinstance(error, ValidationError) else error


def _find_layer(layers: Sequence[Layer], key: str) -> str:
    """Return the name of the layer that a setting comes from: the last of those that have most of its dotted key."""
    source: Layer = max(reversed(layers), key=lambda layer: _count_nested(layer.settings, key))
    return source.name


def _count_nested(settings: Any, key: str) -> int:
    """Return how many of the names in a dotted key are nested in raw settings; a name may contain dots itself."""
    if not isinstance(settings, Mapping):
        return 0
    depths = [
        1 + _count_nested(value, key.removeprefix(f"{name}."))
        for name, value in settings.items()
        if f"{key}.".startswith(f"{name}.")
    ]
    return max(depths, default=0)


def _list_extensions(layers: Iterable[Layer]) -> list[Path]:
    """Return the extension files of all layers, each once."""
    files: dict[Path, Path] = {}
    for layer in layers:
        for file in Config(extensions=layer.settings.get("extensions") or []).extensions:
            files.setdefault(file.resolve(), file)
    return list(files.values())


def _validate(layers: Sequence[Layer]) -> Config:
    """Load the extensions, and return the settings of merged layers.

    Raises:
        ValidationError: a setting is invalid.
        ConfigError: settings do not fit together, or an extension is missing or faulty.
    """
    extensions = _list_extensions(layers)
    load_extensions(extensions)
    merged = _drop_outdated(layers, drop_removed(merge(*(layer.settings for layer in layers))))
    config = Config.model_validate(merged | {"extensions": extensions})
    _check_overrides(config)
    _check_selections(config)
    _check_metrics(config)
    return config


def _check_overrides(config: Config) -> None:
    """Raise ConfigError if the overrides of a data set are invalid, or the training of a backbone on it."""
    for dataset in config.datasets:
        where = key = f"datasets.{dataset}.overrides"
        try:
            _check_overridden_names(config, dataset)
            config.for_dataset(dataset)
            for flow in config.flows:
                where, key = f"training of flows.{flow} on {dataset}", f"flows.{flow}.training"
                config.resolve_training(dataset, flow)
        except (ValidationError, ConfigError) as error:
            fault = _as_config_error(error)
            raise ConfigError(f"{where}: {fault}", f"{key}.{fault.key}") from None


def _drop_outdated(layers: Sequence[Layer], merged: Mapping[str, Any]) -> dict[str, Any]:
    """Drop inherited claims and figures that need a table, or its row, λ or metric, which a later layer has removed.

    Those after which no layer changes tables are kept even if invalid, so that their fault is reported.

    Args:
        layers: config.yaml, presets and the user's settings.
        merged: all layers merged.
    """
    kept, tables = dict(merged), merged.get("tables")
    for group, is_possible in (("claims", has_rows), ("figures", _has_table)):
        blocks = merged.get(group)
        if isinstance(blocks, Mapping) and isinstance(tables, Mapping):
            changed = {name: _changes_tables_later(layers, group, name) for name in blocks}
            kept[group] = {name: raw for name, raw in blocks.items() if not changed[name] or is_possible(raw, tables)}
    return kept


def _changes_tables_later(layers: Sequence[Layer], group: str, name: str) -> bool:
    """Return whether a layer changes tables after the last one that sets a block of a group."""
    last = max(index for index, layer in enumerate(layers) if name in (layer.settings.get(group) or {}))
    return any(layer.settings.get("tables") for layer in layers[last + 1 :])


def _has_table(figure: Any, tables: Mapping[str, Any]) -> bool:
    """Return whether the table of a figure is there, or it has none."""
    table = figure.get("table") if isinstance(figure, Mapping) else None
    return table is None or table in tables


def _check_overridden_names(config: Config, dataset: str) -> None:
    """Raise ConfigError if a data set overrides a backbone or classifier that does not exist."""
    overrides: Mapping[Any, Any] = config.datasets[dataset].overrides
    for group in ("flows", "classifiers"):
        known = getattr(config, group)
        for name in overrides.get(group, {}):
            if name not in known:
                fault = f"{group}: unknown {group[:-1]} '{name}'{suggest(str(name), known)}"
                raise ConfigError(fault, f"{group}.{name}")


def _check_selections(config: Config) -> None:
    """Raise ConfigError if a table would select λ or T on a data set without validation images (`refit`)."""
    for table, experiment in config.iterate_experiments():
        dataset, weights = experiment.dataset, experiment.weights
        if not config.datasets[dataset].refit:
            continue
        key, expected = f"tables.{table}", f"{dataset} has no validation images (refit) to select on: expected"
        if config.tables[table].best_only and len(weights) > 1:
            raise ConfigError.at(key, f"{expected} one λ per experiment with best_only, received {len(weights)}")
        temperatures = set(config.for_dataset(dataset).generation.temperatures)
        if "generated" in experiment.models and len(temperatures) > 1:
            expected += " a single value of generation.temperatures for its classifier"
            raise ConfigError.at(key, f"{expected}, received {len(temperatures)}")


def _check_metrics(config: Config) -> None:
    """Raise ConfigError if no row of a table has any of its metrics; columns that no row has are left out."""
    for table, settings in config.tables.items():
        key = f"tables.{table}.metrics"
        models = {model for experiment in settings.experiments for model in experiment.models}
        # `model` is None for metrics that are computed for each kind of model; DIVERGENCE is only compared by claims
        if all(metric(name).model not in {None, *models} or name == DIVERGENCE for name in settings.metrics):
            expected = "expected a metric that some row of the table has"
            raise ConfigError.at(key, f"{expected}, received {', '.join(settings.metrics)}")
        for name in settings.metrics:
            _check_network(config, key, name, settings.experiments)


def _check_network(config: Config, key: str, name: str, experiments: Iterable[Experiment]) -> None:
    """Raise ConfigError if a metric of a table is a distance by features of a network that there is not."""
    network = find_network(name)
    if network == "inception" and config.quality.inception is None:
        raise ConfigError.at(key, f"{name}: expected quality.inception, the file of Inception's weights, received none")
    for experiment in experiments if network not in (None, "inception") else ():
        if "samples" in experiment.models and experiment.classifier is not None:
            model = config.for_dataset(experiment.dataset).classifiers[experiment.classifier].model
            if model != network:
                raise ConfigError.at(key, f"{name}: expected classifiers with model {network}, received {model}")


def _parse_nulls(value: Any) -> Any:
    """Replace the string `null` by None: of `--config 'a={b: null}'`, Snakemake makes `{"a": {"b": "null"}}`."""
    if isinstance(value, Mapping):
        return {key: _parse_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_parse_nulls(item) for item in value]
    return None if value == "null" else value


def build_json_schema() -> dict[str, Any]:
    """Return the JSON schema of config.yaml and presets."""
    schema = SettingsFile.model_json_schema()
    for group in REMOVABLE:
        described = schema["properties"][group]
        described = schema["$defs"].get(described.get("$ref", "").rpartition("/")[2], described)
        described.setdefault("properties", {})[ALL_INHERITED] = {"type": "null"}
        for name, block in described.get("patternProperties", {}).items():
            described["patternProperties"][name] = {"anyOf": [block, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
