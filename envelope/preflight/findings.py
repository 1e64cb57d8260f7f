"""What a check of this machine found: a level, what it is, and what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is; the values are what `envelope check` prints."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `envelope check`; `do` is what to do about it, empty when there is nothing to do.
    """

    level: Level
    what: str
    do: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.do}" if self.do else self.what


class StartError(Exception):
    """The service cannot start; the text is one line for the operator."""


def ok(what: str) -> Finding:
    """All is well."""
    return Finding(Level.OK, what)


def warn(what: str, do: str) -> Finding:
    """Clients are served, and yet it may not be what the operator wants."""
    return Finding(Level.WARN, what, do)


def fail(what: str, do: str) -> Finding:
    """A start would be refused, or no client would be served."""
    return Finding(Level.FAIL, what, do)
