"""All subcommands of `nfpi`."""

from __future__ import annotations

from importlib import import_module

from nfpi.stages.base import Command, Stage

_MODULES = (
    *("prepare_data", "train_flow", "models", "evaluate", "generate", "train_classifier", "test_classifier"),
    *("tables_and_figures", "model_use", "new", "inspection", "results"),
)
"""Modules of this package that define subcommands, in the order in which the command line lists them."""


def _list_commands(module: str) -> list[type[Command]]:
    """Return the subcommands that a module defines, in the order of their definition."""
    name = f"{__package__}.{module}"
    members = vars(import_module(name)).values()
    classes = [member for member in members if isinstance(member, type) and member.__module__ == name]
    return [member for member in classes if issubclass(member, Command) and member.command]


COMMANDS = tuple(command for module in _MODULES for command in _list_commands(module))
STAGES = tuple(command for command in COMMANDS if issubclass(command, Stage))
GROUPS = ("use a model", "prepare runs", "look at results", Command.group)
"""Headings in the list of subcommands, in their order."""
