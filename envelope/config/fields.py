"""How a field of `envelope.config.Config` declares the option that sets it.

`one`, `optional` and `many` each stand in the place of a field's default. They keep the default,
the reader, and the text of `--help` together with the field, and mypy checks that the reader
returns what the field holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the service.

    `field` is its name in `Config`. `default` is written as an operator would write it, and empty
    when there is none. `read` turns one value's text into what `Config` holds, and raises
    `ValueError` with one line. `meaning` is its text in `--help`. A `many` option may be given
    several times; with `none`, the word "none" alone stands for no value. `heading` is set for the
    first option of a group in `--help`.
    """

    field: str
    default: str
    read: Callable[[str], Any]
    meaning: str
    many: bool = False
    none: bool = False
    heading: str = ""

    @property
    def name(self) -> str:
        """Its name on the command line, without the dashes before it."""
        return self.field.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return "ENVELOPE_" + self.field.upper()

    @property
    def help(self) -> str:
        """Its paragraph in `--help`."""
        often = " May be given several times." if self.many else ""
        default = f" [default: {self.default}]" if self.default else ""
        return f"{self.meaning}{often}{default}"


def one(default: str, read: Callable[[str], Value], meaning: str, heading: str = "") -> Value:
    """Declare an option that has one value."""
    return _declare(
        read(default), default=default, read=read, meaning=meaning, heading=heading
    )


def optional(read: Callable[[str], Value], meaning: str, heading: str = "") -> Value | None:
    """Declare an option that has one value, or None when it is not given."""
    return _declare(None, default="", read=read, meaning=meaning, heading=heading)


def many(
    default: str, read: Callable[[str], Value], meaning: str, none: bool = False, heading: str = ""
) -> tuple[Value, ...]:
    """Declare an option that may be given several times; without `default`, it is empty."""
    return _declare(
        (read(default),) if default else (),
        default=default, read=read, meaning=meaning, many=True, none=none, heading=heading,
    )


def _declare(value: object, **option: Any) -> Any:
    return dataclasses.field(default=value, metadata=option)


def options_of(settings: type) -> tuple[Option, ...]:
    """The options that the fields of a dataclass declare, in their order."""
    return tuple(Option(field.name, **field.metadata) for field in dataclasses.fields(settings))
