"""Merge config.yaml, presets and the user's settings into one validated :class:`Config`.

A preset is a file that overrides config.yaml, and may extend another preset.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from nfpi.config.base import (
    NAME,
    NAME_RULE,
    ConfigError,
    LocalPath,
    Settings,
    TextOfFile,
    expand_home,
    explain,
    find_fault,
    map_leaves,
    suggest,
)
from nfpi.config.claims import DIVERGENCE, has_rows
from nfpi.config.extensions import load_extensions
from nfpi.config.metrics import metric
from nfpi.config.settings import ALL_INHERITED, REMOVABLE, Config, merge
from nfpi.runs import Layout


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
    """Settings of one call of the workflow, and the paths that follow from them.

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

    @cached_property
    def layout(self) -> Layout:
        """Paths of the results of the preset."""
        return Layout(self.results / self.preset)

    @property
    def downloads(self) -> str:
        """Folder of downloads, which all presets share."""
        return f"{self.results.as_posix()}/downloads"


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
    own = _Choice.model_fields.keys()
    lowest, highest = ({key: value for key, value in part.items() if key not in own} for part in (raw, overrides))
    _check_keys(overrides)
    try:
        choice = _Choice.model_validate({key: value for key, value in {**raw, **overrides}.items() if key in own})
    except ValidationError as error:
        raise ConfigError(explain(error)) from None
    file, preset = read_layers(choice.preset, presets)
    layers = {str(config_file): lowest, **preset, "--config": highest}
    try:
        config = _validate([*layers.values()])
    except ValidationError as error:
        path, fault = find_fault(error)
        source = max(reversed(layers), key=lambda name: _count_nested(layers[name], path))  # the last that sets it
        raise ConfigError(f"{source}: {fault}" if path else fault) from None
    folder = choice.results / file.stem
    if any(place.is_file() for place in (folder, *folder.parents)):
        raise ConfigError(f"results: expected a folder, received {choice.results}, which is a file or below one")
    is_of_project = file.parent == presets.resolve()
    return Resolved(file.stem, choice.results, config, None if is_of_project else file)


def _check_keys(overrides: Mapping[str, Any]) -> None:
    """Check the names of the settings given by `--config`; raises ConfigError for an unknown one."""
    known = [*_Choice.model_fields, *Config.model_fields]
    for key in overrides.keys() - known:
        is_weight = key.startswith(("lambda", "relative_weight"))
        hint = " (each experiment of `tables:` has its own)" if is_weight else suggest(key, known)
        raise ConfigError(f"--config: unknown key '{key}'{hint}")


def _count_nested(settings: Any, path: Sequence[str]) -> int:
    """Return how many of the names that lead to a setting are there."""
    if not path or not isinstance(settings, Mapping) or path[0] not in settings:
        return 0
    return 1 + _count_nested(settings[path[0]], path[1:])


def _parse_nulls(value: Any) -> Any:
    """Replace the string `null` by None: of `--config 'a={b: null}'`, Snakemake makes `{"a": {"b": "null"}}`."""
    return map_leaves(value, lambda leaf: None if leaf == "null" else leaf)


def _validate(layers: Sequence[Mapping[str, Any]]) -> Config:
    """Load the extensions of all layers, and return the settings of the merged layers.

    Raises:
        ValidationError: a setting is invalid.
        ConfigError: settings do not fit together, or an extension is missing or faulty.
    """
    files = [file for layer in layers for file in Config(extensions=layer.get("extensions") or []).extensions]
    extensions = list({file.resolve(): file for file in files}.values())
    load_extensions(extensions)
    config = Config.model_validate(_merge_layers(layers) | {"extensions": extensions})
    _check_overrides(config)
    _check_selections(config)
    _check_metrics(config)
    return config


def _merge_layers(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge config.yaml, presets and the user's settings.

    A layer that changes tables drops the claims and figures that it inherits if they then lack a table, or its row, λ
    or metric.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _drop_removed(merge(merged, layer))
        tables = merged.get("tables")
        for group, is_possible in (("claims", has_rows), ("figures", _has_table)) if layer.get("tables") else ():
            blocks, own = merged.get(group), layer.get(group) or {}
            if isinstance(blocks, Mapping) and isinstance(tables, Mapping):
                merged[group] = {name: raw for name, raw in blocks.items() if name in own or is_possible(raw, tables)}
    return merged


def _drop_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return merged settings without the blocks that are null, which removes them (:data:`REMOVABLE`)."""
    groups = {group: settings[group] for group in REMOVABLE if isinstance(settings.get(group), Mapping)}
    kept = {group: {name: block for name, block in of.items() if block is not None} for group, of in groups.items()}
    return {**settings, **kept}


def _has_table(figure: Any, tables: Mapping[str, Any]) -> bool:
    """Return whether the table of a figure is there, or it has none."""
    table = figure.get("table") if isinstance(figure, Mapping) else None
    return table is None or table in tables


def _check_overrides(config: Config) -> None:
    """Raise ConfigError if the overrides of a data set are invalid, or the training of a backbone on it."""
    for dataset in config.datasets:
        where = f"datasets.{dataset}.overrides"
        try:
            own = config.for_dataset(dataset)
            for group, known in (("flows", config.flows), ("classifiers", config.classifiers)):
                unknown = min(getattr(own, group).keys() - known.keys(), default=None)
                if unknown is not None:
                    raise ConfigError(f"{group}: unknown {group[:-1]} '{unknown}'{suggest(unknown, known)}")
            for flow in config.flows:
                where = f"training of flows.{flow} on {dataset}"
                config.resolve_training(dataset, flow)
        except ValueError as error:
            raise ConfigError(f"{where}: {explain(error)}") from None


def _check_selections(config: Config) -> None:
    """Raise ConfigError if a table would select λ or T on a data set without validation images (`refit`)."""
    for table, experiment in config.iterate_experiments():
        dataset, weights = experiment.dataset, experiment.weights
        if not config.datasets[dataset].refit:
            continue
        key, expected = f"tables.{table}", f"{dataset} has no validation images (refit) to select on: expected"
        if config.tables[table].best_only and len(weights) > 1:
            raise ConfigError(f"{key}: {expected} one λ per experiment with best_only, received {len(weights)}")
        temperatures = set(config.for_dataset(dataset).generation.temperatures)
        if "generated" in experiment.models and len(temperatures) > 1:
            expected += " a single value of generation.temperatures for its classifier"
            raise ConfigError(f"{key}: {expected}, received {len(temperatures)}")


def _check_metrics(config: Config) -> None:
    """Raise ConfigError if no row of a table has any of its metrics; columns that no row has are left out."""
    for table, settings in config.tables.items():
        key = f"tables.{table}.metrics"
        models = {model for experiment in settings.experiments for model in experiment.models}
        # `model` is None for metrics that are computed for each kind of model; DIVERGENCE is only compared by claims
        if all(metric(name).model not in {None, *models} or name == DIVERGENCE for name in settings.metrics):
            expected = "expected a metric that some row of the table has"
            raise ConfigError(f"{key}: {expected}, received {', '.join(settings.metrics)}")


def read_layers(preset: str, folder: Path) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Return the file of a preset, and the settings of the presets that it extends, then its own, by their file.

    Args:
        preset: name of a built-in preset, or path of a user's file, whose stem is its name.
        folder: folder of the built-in presets.

    Raises:
        ConfigError: the preset is missing, not a mapping, extends itself, or is a user's file with the name of a
            built-in preset.
    """
    file: Path | None = _find_file(preset, folder, None)
    chain: list[tuple[Path, dict[str, Any]]] = []
    while file is not None:
        if any(file == known for known, _ in chain):
            raise ConfigError(f"{file}: extends itself")
        content = read_settings(file)
        if "preset" in content or "results" in content:
            raise ConfigError(f"{file}: a preset cannot set preset or results")
        extended = content.pop("extends", None)
        # paths in a user's file are relative to its folder
        chain.append((file, content if file.parent == folder.resolve() else TextOfFile.mark(content, file.parent)))
        file = None if extended is None else _find_file(str(extended), folder, chain[-1][0])
    return chain[0][0], {str(file): content for file, content in reversed(chain)}


def list_built_in_presets(folder: Path) -> list[str]:
    """Return the names of the built-in presets."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _find_file(preset: str, folder: Path, extended_by: Path | None) -> Path:
    known = list_built_in_presets(folder)
    if preset in known:
        return (folder / f"{preset}.yaml").resolve()
    where = "preset" if extended_by is None else f"{extended_by}: extends"
    if "/" not in preset and not preset.endswith((".yaml", ".yml")):
        raise ConfigError(f"{where}: unknown preset '{preset}'{suggest(preset, known)}")
    path = expand_home(preset)
    path = (path if extended_by is None else extended_by.parent / path).resolve()
    if not path.is_file():
        raise ConfigError(f"{where}: expected a file with settings, received {path}, which does not exist")
    if path.parent != folder.resolve() and path.stem in known:
        raise ConfigError(f"{where}: {path}: '{path.stem}' is the name of a preset of the project: rename the file")
    if not re.fullmatch(NAME, path.stem):
        raise ConfigError(f"{where}: expected a file with {NAME_RULE}, received '{path.name}'")
    return path


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no annotations
    """Loader that refuses a key that is written twice in a mapping, of which YAML would drop the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in keys[:index]:
                raise yaml.constructor.ConstructorError(problem=f"key '{key.value}' again", problem_mark=key.start_mark)
        return node


def read_settings(file: Path) -> dict[str, Any]:
    """Return the settings in a file.

    Raises:
        ConfigError: it is not YAML, not a mapping, or has a key twice.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # a subclass of SafeLoader
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a text that looks like a date but is none
        raise ConfigError(f"{file}: expected YAML, received something else ({' '.join(str(error).split())})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected settings by name, received {type(content).__name__}")
    return content


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
