"""What all stages share: options are fields, outputs are declared, and the work is imported when it is to be done."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


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


class Stage(Command):
    """A command that writes files into one folder.

    Attributes:
        outputs: files below `output`, by name; options of the stage may stand in them in braces.
    """

    outputs: ClassVar[dict[str, str]] = {}

    output: Path
    """folder of all that the stage writes"""

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
        """The files that the stage leaves."""
        return [self.path(name) for name in self.outputs]
