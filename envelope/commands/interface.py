"""What each command understands, read from the commands themselves, for completions and man page.

The service's options come from `envelope.config`, a command's from its `Options`
(twisted.python.usage); what a value can be, from the types of `Config`, and from what a command
`takes` (`envelope.commands.values`).
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from twisted.python import reflect

from envelope.commands import COMMANDS
from envelope.commands.values import FILE, TEXT, Value, words
from envelope.config import OPTIONS, Config


@dataclass(frozen=True, slots=True)
class CommandOption:
    """One option, without its dashes; `value` is None for one that takes none."""

    name: str
    value: Value | None
    meaning: str
    many: bool = False
    heading: str = ""

    @property
    def short(self) -> str:
        """Its meaning in one line of at most 72 characters."""
        first = self.meaning.partition(" [default")[0].partition(". ")[0]
        return textwrap.shorten(first.rstrip("."), 72, placeholder=" ...")


@dataclass(frozen=True, slots=True)
class Command:
    """One `envelope COMMAND`; with `takes_service_options`, those of the service are not listed."""

    name: str
    what: str
    synopsis: str
    description: str
    options: tuple[CommandOption, ...]
    arguments: Value | None = None
    takes_service_options: bool = False

    @property
    def all_options(self) -> tuple[CommandOption, ...]:
        """Its options, those of the service among them."""
        return self.options + service_options() if self.takes_service_options else self.options


HELP: Final = CommandOption("help", None, "Print this help and exit.")


def service_options() -> tuple[CommandOption, ...]:
    """The options of the service, in the order of `--help`."""
    types = get_type_hints(Config)
    return tuple(
        CommandOption(each.name, _value_of(types[each.field]), each.help, each.many, each.heading)
        for each in OPTIONS
    )


def _value_of(kind: Any) -> Value:
    """What a field's type says of its value."""
    if kind is bool:
        return words("true", "false")
    if kind is Path:
        return FILE
    if get_origin(kind) is Literal:
        return words(*get_args(kind))
    inner = [_value_of(each) for each in get_args(kind) if each not in (type(None), ...)]
    if FILE in inner:
        return FILE
    return inner[0] if len(inner) == 1 else TEXT


def commands() -> Iterator[Command]:
    """Every command, in the order of `envelope --help`."""
    for name, what in COMMANDS.items():
        module = import_module(f"envelope.commands.{name}")
        yield _of_service(name, what, module) if hasattr(module, "USAGE") else _of_its_own(
            name, what, module.Options
        )


def _of_service(name: str, what: str, module: ModuleType) -> Command:
    head, _, description = module.USAGE.partition("\n\n")
    synopsis = head.removeprefix(f"Usage: envelope {name} ")
    flags = getattr(module, "FLAGS", {})
    options = tuple(CommandOption(flag, None, meaning) for flag, meaning in flags.items())
    return Command(
        name, what, synopsis, " ".join(description.split()), (*options, HELP),
        takes_service_options=True,
    )


def _of_its_own(name: str, what: str, parser: Any) -> Command:
    return Command(
        name, what, parser.synopsis, parser.longdesc, (*_options(parser), HELP),
        getattr(parser, "arguments", None),
    )


def _options(parser: Any) -> Iterator[CommandOption]:
    takes: dict[str, Value] = {}
    for base in reversed(parser.__mro__):
        takes |= vars(base).get("takes", {})
    parameters: list[list[Any]] = []
    flags: list[list[Any]] = []
    untyped: Any = reflect
    untyped.accumulateClassList(parser, "optParameters", parameters)
    untyped.accumulateClassList(parser, "optFlags", flags)
    for name, _, default, meaning, *_ in {each[0]: each for each in parameters}.values():
        shown = "" if default is None else f" [default: {default}]"
        yield CommandOption(name, takes.get(name, TEXT), f"{meaning}{shown}")
    for name, _, meaning in flags:
        yield CommandOption(name, None, meaning)
    for method, function in vars(parser).items():
        if method.startswith("opt_"):
            name = method.removeprefix("opt_").replace("_", "-")
            with_value = len(inspect.signature(function).parameters) > 1
            value = takes.get(name, TEXT) if with_value else None
            yield CommandOption(name, value, function.__doc__ or "", many=True)
