"""The command line: one subcommand a stage. Each reads files, calls one function, and writes files.

Options that are groups of settings take one JSON text (`--training '{"epochs": 40}'`), single settings
(`--training.epochs 40`), or both.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import logging
import os
import sys
from itertools import pairwise
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
from nfpi.config import ConfigError, describe_extension_fault, explain, load_extensions
from nfpi.runtime.faults import describe_fault, describe_scarcity
from nfpi.runtime.job_log import PLACE, print_error, run_with_log
from nfpi.runtime.signals import EXIT_STATUS, Interrupted, interruptible
from nfpi.stages.options import COMMANDS, Command


class _Commands(BaseSettings):
    """Normalizing flows with fixed-point Gaussian-mixture priors, one subcommand a stage.

    Before the subcommand: --version; --extensions FILE (again for more) loads a file of your own with priors, flows,
    metrics or classifiers; --log FILE appends what is printed to a file.
    """

    model_config = SettingsConfigDict(
        cli_prog_name="nfpi",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], init_settings: Any, **_: Any
    ) -> tuple[Any, ...]:
        """The command line alone: no setting is taken from the environment."""
        return (init_settings,)

    def cli_cmd(self) -> None:
        """Carry out the stage of the subcommand."""
        from nfpi.stages.execution import execute  # numpy: help needs none

        command = get_subcommand(self)
        assert isinstance(command, Command)
        execute(command)


def _summary(command: type[Command]) -> str:
    """The first line of a command's help."""
    return (command.__doc__ or "").partition("\n")[0]


def commands() -> type[BaseSettings]:
    """A model with a field for each command, from which the parser is made."""
    fields: dict[str, Any] = {
        command.__name__: (
            CliSubCommand[command],  # type: ignore[misc, valid-type]
            Field(alias=command.command, description=_summary(command)),
        )
        for command in COMMANDS
    }
    summary = inspect.cleandoc(_Commands.__doc__ or "")
    made: type[BaseSettings] = create_model("Commands", __base__=_Commands, __doc__=summary, **fields)
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand, and give the status to exit with; other than 0, one line on stderr says why.

    1: a fault that a user can mend (`NFPI_TRACEBACK=1` shows where it arose); 75: stopped by SIGTERM or SIGUSR1, the
    same command resumes; 130: stopped by Ctrl-C. Wrong usage exits with 2.
    """
    arguments = arguments if arguments is not None else sys.argv[1:]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not every locale has a λ
    everywhere = argparse.ArgumentParser(prog="nfpi", add_help=False, allow_abbrev=False)
    everywhere.add_argument("--version", action="version", version=f"nfpi {__version__}")
    everywhere.add_argument("--extensions", action="append", type=Path, default=[])
    everywhere.add_argument("--log", type=Path)
    known, arguments = everywhere.parse_known_args(arguments)
    arguments = arguments or ["--help"]
    log = None if PLACE in os.environ else known.log
    return run_with_log(log, arguments[0], lambda: _run(arguments, known.extensions))


def _run(arguments: list[str], extensions: list[Path]) -> int:
    """Run a subcommand; the status to exit with."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", handlers=[_LineHandler()]
    )
    for noisy in ("lightning.fabric", "lightning_fabric", "fontTools"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        with interruptible(at_once=True):
            load_extensions(extensions)
            CliApp.run(commands(), cli_args=arguments)
    except ValidationError as error:
        return _fail(explain(error))
    except ConfigError as error:
        if os.environ.get("NFPI_TRACEBACK"):
            raise
        return _fail(str(error))
    except SettingsError as error:
        return _fail(_describe_malformed_json(arguments) or str(error))
    except Interrupted as error:
        return _fail(str(error), EXIT_STATUS)
    except Exception as error:
        stage = arguments[0] if arguments else ""
        line = describe_scarcity(error, stage) or describe_extension_fault(error) or describe_fault(error, stage)
        if line is None or os.environ.get("NFPI_TRACEBACK"):
            raise
        return _fail(line)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


def _describe_malformed_json(arguments: list[str]) -> str | None:
    """Name the option whose value looks like JSON and is none."""
    options = [
        part for argument in arguments for part in (argument.split("=", 1) if argument[:2] == "--" else [argument])
    ]
    for option, value in pairwise(options):
        if value.lstrip().startswith(("{", "[")):
            try:
                json.loads(value)
            except ValueError as error:
                return f"{option}: expected JSON, received {value!r} ({error})"
    return None


class _LineHandler(logging.StreamHandler):
    """Lines that do not break a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def _fail(message: str, status: int = 1) -> int:
    print_error(message)
    return status


if __name__ == "__main__":
    sys.exit(main())
