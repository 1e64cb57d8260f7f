"""What values of options and arguments of commands are, for completions and man page. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Kind(Enum):
    """What a value is."""

    TEXT = "anything"
    FILE = "a path"
    WORD = "one of some words"
    PROGRAM = "a program, and its own arguments"
    SESSION = "ids of open sessions"


@dataclass(frozen=True, slots=True)
class Value:
    """A value of an option, or the arguments of a command; `words` are those it can be, if known.

    A command's `Options` has those of its options in `takes`, and of its arguments in `arguments`.
    """

    kind: Kind
    words: tuple[str, ...] = ()


TEXT: Final = Value(Kind.TEXT)
FILE: Final = Value(Kind.FILE)
PROGRAM: Final = Value(Kind.PROGRAM)
SESSIONS: Final = Value(Kind.SESSION)


def words(*known: str) -> Value:
    """One of these words."""
    return Value(Kind.WORD, known)
