"""Presets: files that override config.yaml, each of which may extend another preset."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from nfpi.config.base import NAME, NAME_RULE, ConfigError, TextOfFile, expand_home, suggest
from nfpi.config.classifiers import CLASSIFIERS, ClassifierConfig
from nfpi.config.datasets import SOURCES
from nfpi.config.flows import FLOWS
from nfpi.config.priors import PRIORS
from nfpi.config.registry import Registry

VARIANTS: dict[str, tuple[str, Registry]] = {
    "datasets": ("source", SOURCES),
    "flows": (FLOWS.key, FLOWS),
    "priors": (PRIORS.key, PRIORS),
    "classifiers": ("model", CLASSIFIERS),
}
"""Groups of settings whose blocks each select a variant: the setting that names it, and the registry of the variants.
"""
_DEFAULTS = {
    "flows": FLOWS.default,
    "priors": PRIORS.default,
    "classifiers": ClassifierConfig.model_fields["model"].default,
}
"""Variants of blocks that name none, in the groups in which :func:`merge` replaces settings of another variant."""

REMOVABLE = ("tables", "figures", "claims")
"""Groups of settings in which null removes a block inherited from another preset, and :data:`ALL_INHERITED` all."""
ALL_INHERITED = "*"
"""Key that, with the value null, removes all blocks inherited from other presets."""


class Layer(NamedTuple):
    """Raw settings that override those of the layers before it, and the name of their source in messages."""

    name: str
    settings: Mapping[str, Any]


def merge(base: Mapping[str, Any], *overlays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with the overlays applied: mappings are merged by key, anything else is replaced.

    If an overlay selects another variant (`kind:`, `method:`) in a block of `flows:` or `priors:`, it replaces the
    whole block, since the variants have different settings. The same applies to the `architecture:` of a
    classifier whose overlay selects another `model:`. `"*": null` in an overlay's `tables:`, `figures:` or
    `claims:` removes those of `base` and of the overlays before it.
    """
    merged = copy.deepcopy(dict(base))
    for overlay in overlays:
        merged = _merge_at((), merged, overlay, merged)
    return merged


def _merge_at(
    where: tuple[str, ...], base: Mapping[str, Any], overlay: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge an overlay into `base`, the part of `settings` at the keys `where`."""
    merged = dict(base)
    if len(where) == 1 and where[0] in REMOVABLE and overlay.get(ALL_INHERITED, ...) is None:
        merged = {}
        overlay = {key: value for key, value in overlay.items() if key != ALL_INHERITED}
    for key, value in overlay.items():
        known = merged.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            at = (*where, key)
            value = _merge_at(at, _keep_for_variant(at, known, value, settings), value, settings)
        merged[key] = copy.deepcopy(value)
    return merged


def _keep_for_variant(
    where: tuple[str, ...], block: Mapping[str, Any], overlay: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of a block that apply to the variant which an overlay selects.

    A block in the overrides of a data set need not name its variant: it is for that of the block which it overrides.
    """
    is_block = len(where) == 2 or (len(where) == 5 and where[::2][:2] == ("datasets", "overrides"))
    if not is_block or where[-2] not in _DEFAULTS:
        return dict(block)
    *_, group, name = where
    key, _ = VARIANTS[group]
    blocks = settings.get(group)
    common = blocks.get(name) if isinstance(blocks, Mapping) else None
    variant = ({key: _DEFAULTS[group]} | dict(common if isinstance(common, Mapping) else {}) | dict(block))[key]
    if overlay.get(key, variant) == variant:
        return dict(block)
    return {name: value for name, value in block.items() if name != "architecture"} if group == "classifiers" else {}


def drop_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return merged settings without the blocks that are null, which removes them (:data:`REMOVABLE`)."""
    groups = {group: settings[group] for group in REMOVABLE if isinstance(settings.get(group), Mapping)}
    kept = {group: {name: block for name, block in of.items() if block is not None} for group, of in groups.items()}
    return {**settings, **kept}


def read_layers(preset: str, folder: Path) -> tuple[Path, list[Layer]]:
    """Return the file of a preset, and the layers over config.yaml: the presets that it extends, then itself.

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
    return chain[0][0], [Layer(f"preset {file.stem}", content) for file, content in reversed(chain)]


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


_MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key `<<`, which includes another mapping."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no annotations
    """Loader that refuses a key that is written twice in a mapping, of which YAML would drop the first."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise ConfigError(
                    f"line {key.start_mark.line + 1}: expected each key once, received '{key.value}' again"
                )
            seen.add((key.tag, key.value))
        return node


def read_settings(file: Path) -> dict[str, Any]:
    """Return the settings in a file.

    Raises:
        ConfigError: it is not YAML, not a mapping, or has a key twice.
    """
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), _Loader)  # a subclass of SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, or a text that looks like a date but is none
        raise ConfigError(f"{file}: expected YAML, received something else ({' '.join(str(error).split())})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected settings by name, received {type(content).__name__}")
    return content
