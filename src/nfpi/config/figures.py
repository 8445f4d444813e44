"""Base class of the settings of figures, and their registry; each figure is a module of :mod:`nfpi.figures`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializeAsAny, create_model
from pydantic_core import CoreSchema

from nfpi.config.base import Name, Settings
from nfpi.config.registry import Registry
from nfpi.runs import Layout

if TYPE_CHECKING:
    from nfpi.config.settings import Config


class FigureSettings(Settings):
    """Base class of the settings of figures. Subclasses name the input files.

    A figure with a setting `table` is drawn whenever this table is made.
    """

    title: ClassVar[str] = ""
    """title in reports"""
    caption: ClassVar[str] = ""
    """caption in reports, in reStructuredText"""
    pictures: ClassVar[tuple[str, ...]] = ()
    """names of the pictures; empty: one picture with the name of the figure"""
    has_table: ClassVar[bool] = False
    """whether the shown numbers are also written to a csv file with the name of the figure"""
    uses_gpu: ClassVar[bool] = False
    """whether it uses a GPU"""
    is_quick: ClassVar[bool] = False
    """whether it takes only seconds, and is drawn on the machine of the workflow instead of in a cluster job"""

    @classmethod
    def picture_names(cls, name: str) -> list[str]:
        """Return the names of the pictures of this figure, whose name is `name`."""
        return list(cls.pictures) or [name]

    @classmethod
    def output_names(cls, name: str) -> dict[str, str]:
        """Return the names of the files of this figure: its pictures as PNG and PDF, and its table, if any, as csv."""
        names = {
            f"{picture}_{end}": f"{picture}.{end}" for end in ("png", "pdf") for picture in cls.picture_names(name)
        }
        return names | ({"table": f"{name}.csv"} if cls.has_table else {})

    def files(self, config: Config, layout: Layout) -> dict[str, list[str]]:
        """Return the paths of the input files, by their role.

        Raises:
            ConfigError: the figure cannot show the selected runs.
        """
        raise NotImplementedError

    def reads(self, config: Config) -> dict[str, Settings]:
        """Return other blocks of settings that the figure depends on, by name."""
        return {}

    def describe(self, config: Config) -> str:
        """Return the caption, completed with what depends on the preset: data set, counts, seed."""
        return self.caption


FIGURES = Registry("figure", "register_figure", ("settings", "inputs"), package="nfpi.figures")
"""The builder of a figure is a function, called with the settings and a :class:`nfpi.figures.FigureInputs`; it returns
a :class:`nfpi.figures.Drawn`."""


def _create_figures_model() -> type[Settings]:
    """Create a pydantic model with a field for each registered figure."""
    fields = {name: (FIGURES[name].settings | None, None) for name in sorted(FIGURES)}
    without_search: dict[str, Any] = {"use_attribute_docstrings": False}  # in source, for docstrings of its fields
    return create_model("Figures", __base__=Settings, __cls_kwargs__=without_search, **fields)  # type: ignore[call-overload,no-any-return]


class _FigureMapping:
    """Annotation of a mapping from names of figures to their settings."""

    def validate(self, figures: Any) -> Any:
        if not isinstance(figures, dict):
            return figures
        return {name: figure for name, figure in _create_figures_model().model_validate(figures) if figure is not None}

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(_create_figures_model().__pydantic_core_schema__)


_mapping = _FigureMapping()
Figures = Annotated[dict[Name, SerializeAsAny[FigureSettings]], BeforeValidator(_mapping.validate), _mapping]
