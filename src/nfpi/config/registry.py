"""Registries of the variants of a family (flows, priors, classifiers, ...), by their names in config.yaml.

An entry holds the settings class and the builder of a variant. Built-in variants give their builder as
`module:attribute`, imported when first used, so that reading a config stays fast. Users add variants with
the decorators `register_prior`, `register_flow`, ... in a file listed under `extensions:`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import GetJsonSchemaHandler, create_model
from pydantic_core import CoreSchema

from nfpi.config.base import NAME, NAME_RULE, ConfigError, Settings, suggest

REGISTRIES: list[Registry] = []
"""All registries."""
_loading: list[Path] = []


@contextmanager
def registering_from(file: Path) -> Iterator[None]:
    """Attribute all variants registered within the context to a user's file."""
    _loading.append(file)
    try:
        yield
    finally:
        _loading.pop()


@dataclass(frozen=True)
class Variant:
    """One entry of a registry.

    Attributes:
        name: name in config.yaml.
        settings: its settings class.
        builder: callable that builds it, or its `module:attribute`, imported when first used; None: no builder.
        traits: further properties, which depend on the family.
        extension: the user's file that registered it; None: built in.
        block: settings class of blocks that select it, see :class:`BlockRegistry`.
    """

    name: str
    settings: type[Settings]
    builder: Callable[..., Any] | str | None = None
    traits: dict[str, Any] = field(default_factory=dict)
    extension: Path | None = None
    block: type[Settings] | None = None

    @cached_property
    def build(self) -> Callable[..., Any]:
        """The builder, imported."""
        if isinstance(self.builder, str):
            builder: Callable[..., Any] = pkgutil.resolve_name(self.builder)
            return builder
        if self.builder is None:
            raise TypeError(f"{self.name}: has no builder")
        return self.builder


class Registry:
    """The variants of one family.

    Args:
        family: name of the family in messages, e.g. `prior method`.
        arguments: names of the arguments that builders are called with, by position.
        package: package, or module, that registers the built-in variants; its modules are imported when the registry is
            first read. None: the variants are registered where the registry is defined.
    """

    def __init__(self, family: str, arguments: Sequence[str], package: str | None = None) -> None:
        self.family, self.arguments = family, tuple(arguments)
        REGISTRIES.append(self)
        self._package = package
        self._variants: dict[str, Variant] = {}

    def _import_built_in(self) -> None:
        """Import the modules that register the built-in variants, unless they have been imported."""
        package, self._package = self._package, None
        if package is not None:
            folders = getattr(importlib.import_module(package), "__path__", ())  # a module has none
            for module in pkgutil.iter_modules(folders, f"{package}."):
                importlib.import_module(module.name)

    def register(
        self,
        name: str,
        settings: type[Settings] = Settings,
        builder: Callable[..., Any] | str | None = None,
        **traits: Any,
    ) -> Variant:
        """Add a variant; one whose builder was defined in a script or notebook, where cells are run again, is replaced.

        Raises:
            ConfigError: the name is taken, or not valid in config.yaml and file names; or the builder cannot be called
                with the arguments of this family.
        """
        if not re.fullmatch(NAME, name):
            raise ConfigError(f"{self.family} '{name}': expected {NAME_RULE}")
        self._check_builder(name, builder, self.list_arguments(traits))
        extension = _loading[-1] if _loading else None
        known = self._variants.get(name)
        is_in_notebook = known is not None and getattr(known.builder, "__module__", None) == "__main__"
        if known is not None and not is_in_notebook:
            where = f" by {known.extension}" if known.extension else ""
            raise ConfigError(f"{self.family} '{name}' is registered already{where}")
        block = self._create_block(name, settings)
        self._variants[name] = Variant(name, settings, builder, traits, extension, block)
        return self._variants[name]

    def _create_block(self, name: str, settings: type[Settings]) -> type[Settings] | None:
        """Create the settings class of blocks that select a variant, if there are such blocks."""
        return None

    def list_arguments(self, traits: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the arguments that the builder of a variant with these traits is called with."""
        return self.arguments

    def _check_builder(self, name: str, builder: object, arguments: Sequence[str]) -> None:
        """Check that a builder can be called with these arguments."""
        if builder is None or isinstance(builder, str):
            return
        expected = f"{self.family} '{name}': expected a function or class called with ({', '.join(arguments)})"
        if not callable(builder):
            raise ConfigError(f"{expected}, received {reprlib.repr(builder)}")
        try:
            signature = inspect.signature(builder)
        except (TypeError, ValueError, NameError):  # compiled functions may have none; annotations may be unknown names
            return
        try:
            signature.bind(*arguments)
        except TypeError as error:
            raise ConfigError(f"{expected}, received one with other parameters: {error}") from None

    def __getitem__(self, name: str) -> Variant:
        """Return the variant of this name.

        Raises:
            ConfigError: unknown name.
        """
        if name not in self:
            raise ConfigError(f"unknown {self.family} '{name}'{suggest(name, list(self._variants))}")
        return self._variants[name]

    def __contains__(self, name: object) -> bool:
        self._import_built_in()
        return name in self._variants

    def __iter__(self) -> Iterator[str]:
        self._import_built_in()
        return iter(self._variants)

    def remove(self, name: str) -> None:
        """Remove a variant."""
        del self._variants[name]

    def forget(self, extension: Path) -> None:
        """Remove all variants registered by a user's file."""
        self._import_built_in()  # before the file is run, so that it cannot take a name
        self._variants = {name: entry for name, entry in self._variants.items() if entry.extension != extension}


B = TypeVar("B", bound=Settings)


class BlockRegistry(Registry, Generic[B]):
    """A registry of variants that are configured by blocks, e.g. `priors: {mine: {method: simplex, radius: 20}}`.

    A block has the settings of its variant and the common settings of the family.

    Args:
        family: name of the family in messages.
        key: the setting that selects the variant, e.g. `method`.
        common: class of the common settings; its default of `key` is the default variant.
        arguments: as in :class:`Registry`.
    """

    def __init__(self, family: str, key: str, common: type[B], arguments: Sequence[str]) -> None:
        super().__init__(family, arguments)
        self.key, self.common = key, common
        self.default: str = common.model_fields[key].default

    def _create_block(self, name: str, settings: type[Settings]) -> type[Settings]:
        clash = settings.model_fields.keys() & self.common.model_fields.keys()
        if clash:
            raise ConfigError(f"{self.family} '{name}': every block has the setting '{min(clash)}' already: rename it")
        block: type[Settings] = create_model(
            settings.__name__,
            __base__=self.common if settings is Settings else (settings, self.common),
            __doc__=settings.__doc__,
            __cls_kwargs__={"use_attribute_docstrings": False},  # pydantic would search all source for docstrings
            **{self.key: (Literal[name], name)},  # type: ignore[call-overload]
        )
        return block

    def get_block_type(self, name: str) -> type[B]:
        """Return the settings class of blocks that select this variant."""
        return cast(type[B], self[name].block)

    def get_variant_name(self, block: Any) -> str:
        """Return the name of the variant selected by a raw or validated block."""
        name = block.get(self.key) if isinstance(block, dict) else getattr(block, self.key, None)
        return str(name) if name is not None else self.default

    def selects_other_variant(self, block: Mapping[str, Any], overlay: Mapping[str, Any]) -> bool:
        """Return whether the overlay of a raw block names another variant than that of the block."""
        return self.key in overlay and self.get_variant_name(overlay) != self.get_variant_name(block)

    def validate(self, block: Any) -> Any:
        """Validate a raw block as settings of its variant; pydantic adds the location to errors."""
        if not isinstance(block, dict):
            return block
        return self.get_block_type(self.get_variant_name(block)).model_validate(block)

    def extract_settings(self, block: B) -> Settings:
        """Return the settings of the variant without the common ones, as passed to its builder."""
        settings = self[self.get_variant_name(block)].settings
        return settings.model_validate(block.model_dump(include=set(settings.model_fields)))

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return a schema that accepts the block of any variant."""
        return {"anyOf": [handler(self.get_block_type(name).__pydantic_core_schema__) for name in self]}


class NamedBlockRegistry(Registry):
    """A registry of variants that are configured by blocks with their own names, e.g. `figures: {samples: {…}}`."""

    def _create_model(self) -> type[Settings]:
        """Create a settings class with a field for each variant."""
        fields = {name: (self[name].settings | None, None) for name in sorted(self)}
        without_search: dict[str, Any] = {"use_attribute_docstrings": False}  # in source, for docstrings of its fields
        name = f"{self.family.capitalize()}s"
        return create_model(name, __base__=Settings, __cls_kwargs__=without_search, **fields)  # type: ignore[call-overload,no-any-return]

    def validate(self, blocks: Any) -> Any:
        """Validate raw blocks by their names; those that are null are left out."""
        if not isinstance(blocks, dict):
            return blocks
        return {name: block for name, block in self._create_model().model_validate(blocks) if block is not None}

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(self._create_model().__pydantic_core_schema__)
