"""Lists on the command line, as words (`--classes cat dog`, or positional arguments) or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BeforeValidator
from pydantic_settings import CliPositionalArg, NoDecode

from nfpi.stages.base import Command

T = TypeVar("T")


def _read_json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


JsonList = Annotated[list[T], NoDecode, BeforeValidator(_read_json)]
"""A list that is given as one JSON text on the command line.

By default, pydantic-settings (2.16) splits the text of a list and leaves escapes such as `\\u03bb` in its strings.
"""

_WORD_BY_WORD = "word by word"
"""marker of lists that are given as words instead of JSON"""

Words = Annotated[list[T], NoDecode, BeforeValidator(_read_json), _WORD_BY_WORD]
"""A list that is given as words on the command line; they are taken literally, e.g. `3` or `a,b` as strings."""

_POSITIONAL = get_args(CliPositionalArg[str])[1]


def has_words(command: type[Command]) -> bool:
    """Return whether a command has an option or an argument of type `Words`."""
    return any(_WORD_BY_WORD in field.metadata for field in command.model_fields.values())


def join_words(command: type[Command], arguments: Sequence[str]) -> list[str]:
    """Replace each list of words in the arguments by one JSON text, which the type of the list parses.

    By default, pydantic-settings accepts only one word after an option.

    Args:
        command: command whose fields of type `Words` are lists of words.
        arguments: arguments after the name of the command.

    Returns:
        The arguments, reordered without a change of meaning: positional ones first or, if the arguments
        contain `--`, last and after it.
    """
    fields = command.model_fields
    lists = {name for name, field in fields.items() if _WORD_BY_WORD in field.metadata}
    positional = [name for name, field in fields.items() if _POSITIONAL in field.metadata]
    options = {f"--{name.replace('_', '-')}": name for name in fields if name not in positional}
    switches = {option for option, name in options.items() if fields[name].annotation is bool}
    switches |= {option.replace("--", "--no-", 1) for option in switches} | {"--help", "-h"}
    words: dict[str, list[str]] = {}
    others: list[str] = []
    single: list[str] = []
    ended = False
    option = ""  # option that the next argument belongs to
    for argument in arguments:
        if not ended and argument == "--":
            ended, option = True, ""
        elif not ended and (argument.startswith("--") or argument == "-h"):
            option, equals, value = argument.partition("=")
            if options.get(option) in lists:
                words.setdefault(option, []).extend([value] if equals else [])
                continue
            others.append(argument)
            if equals or option in switches:
                option = ""
        elif option in words:  # "": a positional list has begun
            words[option].append(argument)
        elif option:
            others.append(argument)
            option = ""
        elif len(single) < len([name for name in positional if name not in lists]):
            single.append(argument)
        else:
            words.setdefault("", []).append(argument)
    after = words.pop("", [])  # positional arguments that follow those with a single value
    for name, values in words.items():
        others += [name, json.dumps(values)] if values else [name]
    if any(name in lists for name in positional):
        after = [json.dumps(after)] if after else []
    return [*others, "--", *single, *after] if ended else [*single, *after, *others]
