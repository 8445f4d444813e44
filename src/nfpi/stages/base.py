"""Base classes of stages and commands: their options, declared inputs and outputs, and their work."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_settings import NoDecode

from nfpi.config.base import EXECUTION, select_result_settings, strip_folders, subtract_settings
from nfpi.config.extensions import list_loaded_digests
from nfpi.config.settings import merge
from nfpi.runtime.divergence import Diverged, mark_diverged
from nfpi.runtime.manifests import SUFFIX, Input, compute_digest, read_inputs
from nfpi.stages.jobs import MANIFEST, Needs, Planned, Wildcards, find_setting


def _split_words(value: Any) -> Any:
    return next(csv.reader([value])) if isinstance(value, str) else value


def _split_paths(value: Any) -> Any:
    """Split words joined by commas into paths: as many words as name an existing path are one, as paths have commas."""
    if not isinstance(value, str):
        return value
    words, paths = _split_words(value), []
    while words:
        joined = [",".join(words[:end]) for end in range(1, len(words) + 1)]
        count = next((end for end, path in enumerate(joined, 1) if Path(path).exists()), 1)
        paths.append(joined[count - 1])
        words = words[count:]
    return paths


Paths = Annotated[list[Path], NoDecode, BeforeValidator(_split_paths)]
"""Paths, which may have commas if they exist."""
T = TypeVar("T")
Words = Annotated[list[T], NoDecode, BeforeValidator(_split_words)]
"""A list of words, taken literally, e.g. `3` as a string; a word with a comma is given in double quotes."""


class Command(BaseModel):
    """A subcommand of `nfpi`: its fields are the options, its docstring is the help.

    The parser needs all commands, so their modules import what is heavy, such as torch, NumPy or pandas, in functions.

    Attributes:
        command: name of the subcommand.
        group: heading above it in the list of subcommands.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True)

    command: ClassVar[str] = ""
    group: ClassVar[str] = "stages of the workflow"

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Remove the indentation of the docstring, which is printed as the help."""
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "")

    def run(self) -> None:
        """Do the work of the command."""
        raise NotImplementedError


class Stage(Command):
    """A command that writes files into one folder.

    Attributes:
        places: templates of the folder that jobs of the workflow write to, below results/{preset} (:mod:`nfpi.runs`).
        outputs: paths below `output`, by name; they may contain options in braces. If the stage has a product, the last
            output is its manifest.
        product: kind of the outputs, such as `model`; empty: no other stage reads the outputs.
        label: name of the manifest and the lock, for stages that share a folder; it may contain options in braces.
            Defaults to the product, or the command.
        timed: names of outputs that contain durations, which differ between equal results.
        version: to be raised by hand when formulas change, so that the outputs are made again.
        inputs: files read from other stages' outputs, by the option that names their folder; empty if the option names
            the file itself.
        apart: inputs of another run or data set than the others, with which they are not compared.
        many_runs: whether the inputs belong to different runs, and none is compared with another one.
        positional: the input that the command line names without its option.
        replaces_folder: whether the stage replaces its whole folder, including files that it did not write.
        blocks: places in config.yaml of options that have another name there, with wildcards in braces, or names of the
            wildcards that they are.
        uses: wildcards that name what the result depends on besides settings, if a user's file defines it: `dataset`,
            `flow`, `prior`, `classifier`.
        paths: names of the options that are paths.

    An option that affects how a job runs, but not its result, is annotated with :data:`nfpi.config.EXECUTION`; options
    that are paths only locate files. The result depends on all other options, and on the content of the input files.
    """

    places: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[dict[str, str]] = {}
    product: ClassVar[str] = ""
    label: ClassVar[str] = ""
    timed: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    inputs: ClassVar[dict[str, tuple[str, ...]]] = {}
    apart: ClassVar[tuple[str, ...]] = ()
    many_runs: ClassVar[bool] = False
    positional: ClassVar[str] = ""
    replaces_folder: ClassVar[bool] = False
    blocks: ClassVar[dict[str, str]] = {}
    uses: ClassVar[tuple[str, ...]] = ()
    paths: ClassVar[set[str]]

    output: Path
    """folder of the outputs"""
    code: list[str] | None = None
    """SHA-256 of the user's files (`--extensions`) that define what the stage uses; None: of any of these files"""
    settings: dict[str, Any] = Field(default={}, exclude=True)
    """options that affect the result, as one JSON object; options given one by one take precedence"""
    execution: dict[str, Any] = Field(default={}, exclude=True)
    """options that do not affect the result, as one JSON object"""
    key: str = Field(default="", exclude=True)
    """key of the outputs; with other settings or inputs the stage does not start"""

    @model_validator(mode="before")
    @classmethod
    def _merge_options(cls, data: Any) -> Any:
        """Merge the options given by `settings` and `execution` with those given one by one."""
        given = [data[name] for name in ("settings", "execution") if data.get(name)] if isinstance(data, dict) else []
        if not given or not all(isinstance(options, dict) for options in given):
            return data  # options of a wrong type are named by the validation of their field
        return merge({}, *given, data)

    @classmethod
    def select_options(cls, planned: Planned, wildcards: Wildcards) -> dict[str, Any]:
        """Return the options of a job of the workflow, except paths.

        An option is the block of the settings or the wildcard that `blocks` names, or else the one with its own name.
        """
        config = dict(planned.resolve(wildcards))
        places = {name: cls.blocks.get(name, name) for name in cls._drop_paths(cls.model_fields)}
        found = {name: find_setting(config, wildcards, place) for name, place in places.items()}
        options = {name: value for name, value in found.items() if value is not None}
        return options | {"code": planned.list_digests(wildcards, *cls.uses)}

    @classmethod
    def plan(cls, planned: Planned, wildcards: Wildcards) -> Self:
        """Create the stage of a job of the workflow without its paths, for :attr:`declaration`."""
        return cls.model_construct(**cls.select_options(planned, wildcards))

    @property
    def declaration(self) -> dict[str, Any]:
        """All that the result depends on apart from the content of the input files, as in JSON."""
        declared = self._drop_paths(select_result_settings(self))
        return declared | {"code": list_loaded_digests() if self.code is None else self.code}

    def compute_key(self, inputs: Mapping[str, Sequence[str]]) -> str:
        """Compute the key of the outputs: the digest of all that they depend on.

        Args:
            inputs: keys of the inputs, by their name.
        """
        declared = strip_folders(self.declaration)
        return compute_digest([self.command, self.version, declared, {name: [*keys] for name, keys in inputs.items()}])

    @cached_property
    def traced(self) -> list[Input]:
        """Keys and contents of the inputs, verified when they are first asked for.

        Raises:
            ManifestError: a file is damaged.
            OSError: a file cannot be read.
        """
        digests = {name: self.digest_source(name) for name in self.list_sources()}
        sources = [Input(name=name, key=digest, content=digest) for name, digest in digests.items()]
        files = self.list_inputs() | self.list_files_of_settings()
        return read_inputs(files, self.output, with_times=self.many_runs, apart=self.apart, warn=not self.key) + sources

    @property
    def own_key(self) -> str:
        """The key of the outputs by the present options and inputs."""
        keys: dict[str, list[str]] = {}
        for found in self.traced:
            keys.setdefault(found.name, []).append(found.key)
        return self.compute_key(keys)

    @property
    def resume_key(self) -> str:
        """Digest of the key and of the contents of the inputs: a stage resumes only what was begun with the same."""
        return compute_digest([self.own_key, [found.content for found in self.traced]])

    def select_execution(self) -> dict[str, Any]:
        """Return the options that are neither paths nor part of the declaration, as in JSON."""
        return self._drop_paths(subtract_settings(self.model_dump(mode="json"), self.declaration))

    @classmethod
    def _drop_paths(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in options.items() if name not in cls.paths}

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Name the manifest, and declare it as an output."""
        super().__pydantic_init_subclass__(**options)
        cls.paths = {name for name, field in cls.model_fields.items() if _is_path(field.annotation)}
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
            folder = self.output.absolute()
            return folder.parent.resolve() / f".{folder.name}{name}"
        return self.output / name

    def list_inputs(self) -> dict[str, list[Path]]:
        """Return the files that the stage reads from other stages' outputs or from the user, by name."""
        return {
            option: [folder / file if file else folder for folder in folders for file in (files or ("",))]
            for option, files in self.inputs.items()
            if (folders := _collect_paths(getattr(self, option)))
        }

    def list_sources(self) -> dict[str, Path]:
        """Return the folders and archives of the user that the stage reads, by name."""
        return {}

    def digest_source(self, name: str, downloads: Path | None = None) -> str:
        """Return the digest of names and contents of the files in one of these folders.

        Args:
            name: its name.
            downloads: folder of downloads; None: that of the options.
        """
        raise NotImplementedError

    def list_files_of_settings(self) -> dict[str, list[Path]]:
        """Return the files that settings of the user's own code name (`nfpi.config.LocalPath`), by place.

        Of a folder, all files count.
        """
        values = {name: value for name, value in self if name not in self.paths}
        named = [file for name, value in values.items() for file in _find_paths(value, name)]
        return {
            name: [path] if not path.is_dir() else sorted(file for file in path.rglob("*") if file.is_file())
            for name, path in named
        }

    @classmethod
    def makes(cls, planned: Planned, wildcards: Wildcards) -> bool:
        """Return whether it is this stage that writes the outputs at one of its places, which stages may share."""
        return True

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return what a job of the workflow reads; the names are those of :meth:`list_inputs`."""
        return {}

    def list_path_options(self, needs: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the words of the command line that name the inputs, given the paths of what a job needs."""
        options = [(name, paths[0]) for name, paths in needs.items() if name in self.inputs and name != self.positional]
        words = [word for name, path in options for word in (f"--{name.replace('_', '-')}", path)]
        return [*words, *needs.get(self.positional, ())]

    @property
    def temporary(self) -> list[Path]:
        """Outputs that are removed once the stage that reads them has ended."""
        return []

    def record_divergence(self, fault: Diverged) -> None:
        """Write outputs that record a divergence, of this stage or of one whose outputs it reads."""
        mark_diverged(self.list_output_paths(), fault)

    def finish(self) -> None:
        """Finish the stage after its manifest is written; does nothing by default."""


def _find_paths(settings: Any, place: str) -> Iterator[tuple[str, Path]]:
    """Yield the paths in settings that results depend on, with their places."""
    if isinstance(settings, BaseModel):
        for name, field in type(settings).model_fields.items():
            value = getattr(settings, name)
            if EXECUTION in field.metadata:
                continue
            if isinstance(value, Path):
                yield f"{place}.{name}", value
            yield from _find_paths(value, f"{place}.{name}")


def _is_path(annotation: Any) -> bool:
    """Return whether an option is a path, or a collection of paths."""
    return annotation is Path or any(_is_path(inner) for inner in get_args(annotation))


def _collect_paths(value: Any) -> list[Path]:
    """Collect all paths in the value of an option."""
    if isinstance(value, Path):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    return [] if value is None else [path for item in value for path in _collect_paths(item)]
