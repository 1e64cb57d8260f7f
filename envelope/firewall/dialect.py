"""How a tool that stays open is spoken to, and how it answers. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from envelope.firewall.process import CLEAN_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one tool is spoken to, and how it answers.

    `open` and `once` are its arguments when it stays open and when it reads one transaction to
    its end. `header` and `footer` stand around a transaction's lines, `joint` between them.
    `asks` begins the line that asks for an acknowledgement, which comes back on descriptor
    `answers_on`. `complaint` is in each line there that says what went wrong; asking makes
    `expected` such lines of its own. Where `longest` is not None, transactions of more bytes than
    that, or with a line of several lines, get a process of their own. After `lifetime` transactions
    the open one is replaced.
    """

    open: tuple[str, ...]
    once: tuple[str, ...]
    header: str
    joint: str
    footer: str
    asks: str
    answers_on: int
    complaint: bytes = b""
    expected: int = 0
    longest: int | None = None
    lifetime: int | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: CLEAN_ENVIRONMENT)

    def text(self, lines: Sequence[str], joint: str) -> bytes:
        """One transaction, as the tool reads it."""
        return (self.header + joint.join(lines) + self.footer).encode("ascii")

    def needs_its_own(self, lines: Sequence[str], text: bytes) -> bool:
        """Whether a transaction is too much for the tool that stays open."""
        return self.longest is not None and (
            len(text) > self.longest or any("\n" in line for line in lines)
        )
