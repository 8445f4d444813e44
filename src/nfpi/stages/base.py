"""Base classes of stages and commands: their options, declared inputs and outputs, and their work."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from nfpi.runtime.manifests import SUFFIX

MANIFEST = "manifest"
"""name of the output that is written last"""


class Command(BaseModel):
    """A subcommand of `nfpi`: its fields are the options, its docstring is the help.

    The parser needs all commands, so their modules import what is heavy, such as torch, NumPy or pandas, in functions.

    Attributes:
        command: name of the subcommand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    command: ClassVar[str] = ""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Remove the indentation of the docstring, which is printed as the help."""
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "")

    def run(self) -> None:
        """Do the work of the command."""
        raise NotImplementedError


ONE_RUN = ("data", "initial state", "prior", "model")
"""kinds of product that exist once per run: no two files of a run depend on different products of such a kind"""


class Stage(Command):
    """A command that writes files into one folder.

    Attributes:
        outputs: paths below `output`, by name; they may contain options in braces. If the stage has a product, the last
            output is its manifest.
        product: kind of the outputs, such as `model`; empty: no other stage reads the outputs.
        label: name of the manifest and the lock, for stages that share a folder; it may contain options in braces.
            Defaults to the product, or the command.
        timed: names of outputs that contain durations or the modification times of files, which differ between equal
            results.
        inputs: files read from other stages' outputs, by the option that names their folder; empty if the option names
            the file itself.
        common: kinds of product that exist once: no two inputs may depend on different products of such a kind; None:
            the inputs belong to different runs, and are not compared.
        replaces_folder: whether the stage replaces its whole folder, including files that it did not write.
    """

    outputs: ClassVar[dict[str, str]] = {}
    product: ClassVar[str] = ""
    label: ClassVar[str] = ""
    timed: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[dict[str, tuple[str, ...]]] = {}
    common: ClassVar[tuple[str, ...] | None] = ONE_RUN
    replaces_folder: ClassVar[bool] = False

    output: Path
    """folder of the outputs"""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Name the manifest, and declare it as an output."""
        super().__pydantic_init_subclass__(**options)
        cls.label = cls.label or cls.product.replace(" ", "-") or cls.command
        if cls.product and MANIFEST not in cls.outputs:
            cls.outputs = {**cls.outputs, MANIFEST: f"{cls.label}{SUFFIX}"}

    @classmethod
    def get_output_files(cls, **options: str) -> dict[str, str]:
        """Return the paths of the declared outputs, relative to `output`, by name.

        Args:
            options: values of the options in the paths.
        """
        return {name: file.format(**options) if options else file for name, file in cls.outputs.items()}

    def get_path(self, name: str) -> Path:
        """Return the path of a declared output."""
        return self.output / self.outputs[name].format(**self.__dict__)

    def list_output_paths(self) -> list[Path]:
        """Return the paths of all outputs but the manifest."""
        return [self.get_path(name) for name in self.outputs if name != MANIFEST]

    @property
    def lock(self) -> Path:
        """Lock file, in the output folder or beside a folder that is replaced."""
        name = f".{self.label.format(**self.__dict__)}.lock"
        if self.replaces_folder:  # a lock inside would be removed with the folder
            folder = self.output.resolve()
            return folder.with_name(f".{folder.name}{name}")
        return self.output / name

    def list_input_files(self) -> list[Path]:
        """Return the files that the stage reads from other stages' outputs."""
        return [
            folder / file if file else folder
            for option, files in self.inputs.items()
            for folder in _collect_paths(getattr(self, option))
            for file in (files or ("",))
        ]

    @property
    def temporary(self) -> list[Path]:
        """Outputs that are removed once the stage that reads them has ended."""
        return []

    def finish(self) -> None:
        """Finish the stage after its manifest is written; does nothing by default."""

    def get_facts(self) -> dict[str, Any]:
        """Return the facts of the run given by the options, see :class:`nfpi.runtime.manifests.Manifest`."""
        return {}


def _collect_paths(value: Any) -> list[Path]:
    """Collect all paths in the value of an option."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [] if value is None else [path for item in value for path in _collect_paths(item)]
