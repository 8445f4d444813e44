"""The command line: stages, which read and write files, and commands that apply models or print results.

A group of settings is given as JSON (`--training '{"epochs": 40}'`), as one option per setting
(`--training.epochs 40`), or as both.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSubCommand,
    SettingsConfigDict,
    SettingsError,
    get_subcommand,
)
from tqdm import tqdm

from nfpi import __version__
from nfpi.config.base import ConfigError, explain, suggest
from nfpi.config.extensions import describe_extension_fault, load_extensions
from nfpi.runtime.faults import describe_exhausted_memory, describe_fault, escape_controls
from nfpi.runtime.job_log import is_first_process, print_error, run_with_log
from nfpi.runtime.signals import EXIT_STATUS, INTERRUPTS, Interrupted, interruptible
from nfpi.stages.base import Command, Stage
from nfpi.stages.commands import COMMANDS, GROUPS

logger = logging.getLogger(__name__)

_PARSING_PREFIX = "error parsing CLI: "
_USAGE_ERROR_STATUS = 2
_CLOSED_STATUS = 141
"""exit status of a command whose output its reader, such as `head`, has closed: that of a process ended by SIGPIPE"""


_HELP = """\
usage: nfpi [--version] [--extensions FILE] [--log FILE] SUBCOMMAND ...

Normalizing flows whose class Gaussians are fitted by fixed-point iteration.
`nfpi SUBCOMMAND --help` explains a subcommand. Before it: --extensions FILE (may be repeated) loads your own priors,
flows, metrics or classifiers from a Python file; --log FILE appends the output to a file.
"""


class _Commands(BaseSettings):
    """Base class of the model of all subcommands."""

    model_config = SettingsConfigDict(
        cli_prog_name="nfpi",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], init_settings: Any, **_: Any
    ) -> tuple[Any, ...]:
        """Read settings only from the command line, not from the environment."""
        return (init_settings,)

    def cli_cmd(self) -> None:
        """Run the subcommand."""
        from nfpi.stages.execution import execute  # slow, because it imports NumPy; --help does not need it

        command = get_subcommand(self)
        assert isinstance(command, Command)
        execute(command)
        if isinstance(command, Stage):
            logger.info("wrote %s", command.output)


def create_commands_model() -> type[BaseSettings]:
    """Create a model with one field per command, from which the parser is made."""
    fields: dict[str, Any] = {
        command.__name__: (
            CliSubCommand[command],  # type: ignore[misc, valid-type]
            Field(alias=command.command),
        )
        for command in COMMANDS
    }
    model: type[BaseSettings] = create_model("Commands", __base__=_Commands, **fields)
    return model


def _print_help() -> None:
    """Print all subcommands by purpose, each with the first line of its help."""
    print(_HELP, end="")
    for group in GROUPS:
        print(f"\n{group}:")
        for command in (command for command in COMMANDS if command.group == group):
            print(f"  {command.command:17} {(command.__doc__ or '').partition(chr(10))[0]}")


def _print_help_of_command(arguments: list[str]) -> None:
    """Print the help of a subcommand; argparse itself would ignore that the reader has closed the output."""
    text = io.StringIO()
    with suppress(SystemExit), redirect_stdout(text):
        CliApp.run(create_commands_model(), cli_args=arguments)
    print(text.getvalue(), end="")


def run(arguments: list[str]) -> int:
    """Run a subcommand, and return the exit status, see :func:`nfpi.cli.main`."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")  # None: the caller closed it
        setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the encoding may lack λ
    global_options = argparse.ArgumentParser(prog="nfpi", add_help=False, allow_abbrev=False, exit_on_error=False)
    global_options.add_argument("--version", action="version", version=f"nfpi {__version__}")
    global_options.add_argument("--extensions", action="append", type=Path, default=[])
    global_options.add_argument("--log", type=Path)
    try:
        known, arguments = global_options.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        return _fail(str(error), _USAGE_ERROR_STATUS)
    arguments = arguments or ["--help"]
    # of the processes of a training on several devices, only the first writes the log
    log = known.log if is_first_process() else None
    return run_with_log(log, arguments[0], lambda: _run(arguments, known.extensions))


def _run(arguments: list[str], extensions: list[Path]) -> int:
    """Run a subcommand, and return the exit status."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[_LineHandler()]
    )
    for noisy in ("fontTools", "torch"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    known, first = {command.command: command for command in COMMANDS}, arguments[0]
    if first not in (*known, "--help", "-h"):
        return _fail(f"unknown subcommand or option '{first}'{suggest(first, known)}", _USAGE_ERROR_STATUS)
    command = known.get(first, Command)
    try:
        with interruptible(at_once=True):
            load_extensions(extensions)
            try:
                if first in ("--help", "-h"):
                    _print_help()
                elif {"--help", "-h"} & {*arguments}:
                    _print_help_of_command(arguments)
                else:
                    CliApp.run(create_commands_model(), cli_args=arguments)
            finally:
                sys.stdout.flush()  # at exit, it would be too late to handle a pipe that its reader has closed
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, KeyboardInterrupt) or INTERRUPTS:
            print("nfpi: stopped; run the same command again to resume", file=sys.stderr)
            return 130
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
            if not issubclass(command, Stage) or {"--help", "-h"} & {*arguments}:  # in a stage, it may be another pipe
                return _CLOSED_STATUS
        if isinstance(error, SettingsError) and str(error).startswith(_PARSING_PREFIX):
            fault = str(error).removeprefix(_PARSING_PREFIX)
            return _fail(f"{fault} (see nfpi {command.command} --help)", _USAGE_ERROR_STATUS)
        line = _describe_error(error, first)
        is_expected = isinstance(error, ValidationError | SettingsError | Interrupted)
        if line is None or (os.environ.get("NFPI_TRACEBACK") and not is_expected):
            raise
        return _fail(line, EXIT_STATUS if isinstance(error, Interrupted) else 1)
    return 0


def _describe_error(error: Exception, command: str) -> str | None:
    """Describe in one line an error that a user can fix; None for an error of the program."""
    if isinstance(error, ValidationError):
        return explain(error)
    if isinstance(error, SettingsError) and error.__cause__ is not None:
        received = getattr(error.__cause__, "doc", "")  # the text is that of one of the options
        return f"{command}: expected JSON, received '{received}' ({error.__cause__})"
    if isinstance(error, ConfigError | Interrupted):
        return str(error)
    return describe_exhausted_memory(error) or describe_extension_fault(error) or describe_fault(error)


class _LineHandler(logging.Handler):
    """Log handler whose lines do not break a progress bar, and hold nothing that a terminal obeys."""

    def emit(self, record: logging.LogRecord) -> None:
        lines = self.format(record).split("\n")
        tqdm.write("\n".join(map(escape_controls, lines)), file=sys.stderr)


def _fail(message: str, status: int = 1) -> int:
    print_error(message)
    return status
