"""Registries: the variants of a family (flows, priors, classifiers, ...), by the name that config.yaml uses.

An entry says which settings a variant has and what builds it. Those of the project name their builder as
`module:attribute` and import it when it is first needed, so that reading a config stays quick. A user's entries are
made by the decorators `register_prior`, `register_flow`, ... in a file named under `extensions:`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, GetJsonSchemaHandler, create_model
from pydantic_core import CoreSchema, PydanticCustomError

from nfpi.config.base import NAME, ConfigError, Settings, suggest

_loading: list[Path] = []


@contextmanager
def registering_from(file: Path) -> Iterator[None]:
    """What is registered in the block comes from this file of the user's."""
    _loading.append(file)
    try:
        yield
    finally:
        _loading.pop()


@dataclass(frozen=True)
class Variant:
    """One entry of a registry.

    Attributes:
        name: by which config.yaml selects it.
        settings: class of its settings.
        builder: what makes it; `module:attribute` is imported when it is first needed, None: nothing is made.
        traits: what else the family says of its variants.
        extension: the user's file that registered it; None: it is the project's own.
    """

    name: str
    settings: type[Settings]
    builder: Callable[..., Any] | str | None = None
    traits: dict[str, Any] = field(default_factory=dict)
    extension: Path | None = None

    @cached_property
    def build(self) -> Callable[..., Any]:
        """The builder, imported."""
        if isinstance(self.builder, str):
            module, _, attribute = self.builder.partition(":")
            found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
            return found
        if self.builder is None:
            raise TypeError(f"{self.name}: has no builder")
        return self.builder


class Registry:
    """The variants of one family.

    Args:
        family: what messages call a variant, e.g. `prior method`.
    """

    def __init__(self, family: str) -> None:
        self.family = family
        self._variants: dict[str, Variant] = {}

    def register(
        self,
        name: str,
        settings: type[Settings] = Settings,
        builder: Callable[..., Any] | str | None = None,
        **traits: Any,
    ) -> Variant:
        """Add a variant.

        Raises:
            ConfigError: the name is taken, or cannot be written in config.yaml and in names of files.
        """
        if not re.fullmatch(NAME, name):
            raise ConfigError(f"{self.family} '{name}': expected a name of letters, digits and . _ + -")
        extension = _loading[-1] if _loading else None
        known = self._variants.get(name)
        if known is not None:
            where = f" by {known.extension}" if known.extension else ""
            raise ConfigError(f"{self.family} '{name}' is registered already{where}")
        self._variants[name] = Variant(name, settings, builder, traits, extension)
        return self._variants[name]

    def __getitem__(self, name: str) -> Variant:
        """The variant of this name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self._variants:
            raise ConfigError(f"unknown {self.family} '{name}'{suggest(name, list(self._variants))}")
        return self._variants[name]

    def known(self, name: str) -> str:
        """The same name, for pydantic; ValueError where there is no such variant."""
        try:
            return self[name].name
        except ConfigError as error:
            raise ValueError(str(error)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._variants

    def __iter__(self) -> Iterator[str]:
        return iter(self._variants)

    def set_builder(self, name: str, builder: Callable[..., Any]) -> None:
        """What makes a variant that was registered without."""
        self._variants[name] = replace(self[name], builder=builder)

    def forget(self, extension: Path) -> None:
        """Remove what a user's file registered."""
        self._variants = {name: entry for name, entry in self._variants.items() if entry.extension != extension}


B = TypeVar("B", bound=Settings)


class BlockRegistry(Registry, Generic[B]):
    """A family whose variants are configured by named blocks, e.g. `priors: {mine: {method: simplex, radius: 20}}`.

    A block has the settings of its variant, and those that all blocks of the family have.

    Args:
        family: what messages call a variant.
        key: the setting of a block that selects the variant, e.g. `method`.
        common: the settings that every block has; the default of `key` is the variant of a block that names none.
    """

    def __init__(self, family: str, key: str, common: type[B]) -> None:
        super().__init__(family)
        self.key, self.common = key, common
        self.default: str = common.model_fields[key].default
        self._blocks: dict[str, tuple[Variant, type[B]]] = {}

    def register(
        self,
        name: str,
        settings: type[Settings] = Settings,
        builder: Callable[..., Any] | str | None = None,
        **traits: Any,
    ) -> Variant:
        """Add a variant.

        Raises:
            ConfigError: the name is taken or invalid, or a setting is named like one that every block has.
        """
        clash = settings.model_fields.keys() & self.common.model_fields.keys()
        if clash:
            raise ConfigError(f"{self.family} '{name}': every block has the setting '{min(clash)}' already: rename it")
        return super().register(name, settings, builder, **traits)

    def block_type(self, name: str) -> type[B]:
        """The settings of a block that selects this variant."""
        variant = self[name]
        known = self._blocks.get(name)
        if known is None or known[0] is not variant:
            made = create_model(
                variant.settings.__name__,
                __base__=self.common if variant.settings is Settings else (variant.settings, self.common),
                __doc__=variant.settings.__doc__,
                **{self.key: (Literal[name], name)},  # type: ignore[call-overload]
            )
            known = self._blocks[name] = (variant, made)
        return known[1]

    def selected(self, block: Any) -> str:
        """Name of the variant that a block, raw or validated, selects."""
        found = block.get(self.key) if isinstance(block, dict) else getattr(block, self.key, None)
        return str(found) if found is not None else self.default

    def validate(self, block: Any) -> Any:
        """A raw block as the settings of its variant, for pydantic, which keeps the location of an error."""
        if not isinstance(block, dict):
            return block
        name = self.selected(block)
        if name not in self:
            raise PydanticCustomError(
                "unknown_variant",
                "{key}: unknown {family} '{name}'{hint}",
                {"key": self.key, "family": self.family, "name": name, "hint": suggest(name, list(self))},
            )
        return self.block_type(name).model_validate(block)

    def settings_of(self, block: B) -> Settings:
        """The settings of the variant alone, as its builder gets them."""
        settings = self[self.selected(block)].settings
        return settings.model_validate(block.model_dump(include=set(settings.model_fields)))

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Any of the variants' blocks."""
        return {"anyOf": [handler(_core_schema(self.block_type(name))) for name in self]}


def _core_schema(model: type[BaseModel]) -> CoreSchema:
    return model.__pydantic_core_schema__
