"""What all stages share: options are fields, outputs are declared, and the work is imported when it is to be done."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from nfpi.runtime.manifests import SUFFIX

MANIFEST = "manifest"
"""Name of the output that is written last."""


class Command(BaseModel):
    """A subcommand of `nfpi`: its fields are the options, its docstring is the help.

    Attributes:
        command: name of the subcommand.
        work: the function that does the work, `module:function`; it gets the command.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    command: ClassVar[str] = ""
    work: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Keep the docstring as the help prints it: a first line, and what else there is to say."""
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "")

    def load(self) -> Callable[[Any], None]:
        """The function that does the work, imported."""
        module, _, name = self.work.partition(":")
        function: Callable[[Any], None] = getattr(importlib.import_module(module), name)
        return function


ONE_RUN = ("data", "initial state", "prior", "model")
"""Products that all inputs of a stage must have in common, as far as they were made from them."""


class Stage(Command):
    """A command that writes files into one folder.

    Attributes:
        outputs: files below `output`, by name; options of the stage may stand in them in braces. The last one is the
            manifest, where the stage has a product.
        product: what the outputs are together, in a word or two; empty: nothing that another stage reads.
        label: what the manifest and the lock are called, where several stages write into one folder; options may stand
            in it in braces. It defaults to the product, or the command.
        timed: names of outputs that hold measured times, and so differ whenever they are made.
        inputs: files that the stage reads of other stages' outputs, by the option that names their folder; nothing: the
            option names the file itself.
        common: what all inputs were made from; None: they belong to different runs.
        replaces_folder: whether the stage replaces its folder as a whole, with all that lies in it.
    """

    outputs: ClassVar[dict[str, str]] = {}
    product: ClassVar[str] = ""
    label: ClassVar[str] = ""
    timed: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[dict[str, tuple[str, ...]]] = {}
    common: ClassVar[tuple[str, ...] | None] = ONE_RUN
    replaces_folder: ClassVar[bool] = False

    output: Path
    """folder of all that the stage writes"""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Declare the manifest, and name it."""
        super().__pydantic_init_subclass__(**options)
        cls.label = cls.label or cls.product.replace(" ", "-") or cls.command
        if cls.product and MANIFEST not in cls.outputs:
            cls.outputs = {**cls.outputs, MANIFEST: f"{cls.label}{SUFFIX}"}

    @classmethod
    def output_files(cls, **options: str) -> dict[str, str]:
        """The declared outputs below the folder of outputs, by name.

        Args:
            options: those that stand in the names of files.
        """
        return {name: file.format(**options) if options else file for name, file in cls.outputs.items()}

    def path(self, name: str) -> Path:
        """Where a declared output lies."""
        return self.output / self.outputs[name].format(**self.__dict__)

    def output_paths(self) -> list[Path]:
        """The files that the stage leaves, without its manifest."""
        return [self.path(name) for name in self.outputs if name != MANIFEST]

    @property
    def lock(self) -> Path:
        """The file by which one process alone does this: in the output folder, or beside one that is replaced."""
        name = f".{self.label.format(**self.__dict__)}.lock"
        if self.replaces_folder:  # the file would go with the folder, while it is locked
            folder = self.output.resolve()
            return folder.with_name(f".{folder.name}{name}")
        return self.output / name

    def input_files(self) -> list[Path]:
        """The files that the stage reads of other stages' outputs."""
        return [
            folder / file if file else folder
            for option, files in self.inputs.items()
            for folder in _paths_of(getattr(self, option))
            for file in (files or ("",))
        ]

    @property
    def temporary(self) -> list[Path]:
        """Outputs that are removed when the stage that they are for has ended."""
        return []

    def end(self) -> None:
        """What remains to be done when the manifest is written."""

    def facts(self) -> dict[str, Any]:
        """What the options say of the run that the outputs belong to, as :class:`nfpi.runtime.manifests.Manifest`."""
        return {}


def _paths_of(value: Any) -> list[Path]:
    """All paths of the value of an option."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [] if value is None else [path for item in value for path in _paths_of(item)]
