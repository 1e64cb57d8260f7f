"""How a tool is given transactions, and how it acknowledges them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from envelope.firewall.process import CLEAN_ENVIRONMENT


@dataclass(frozen=True, slots=True)
class Dialect:
    """One tool's way of taking transactions.

    `open`, `once`: arguments to stay open, and to read one transaction and end. `header`, `footer`,
    `joint`: what stands before, behind and between a transaction's lines. `asks`: begins the line
    that asks for an acknowledgement, which comes back on descriptor `answers_on`. `complaint`: is
    in each line there that reports an error; asking causes `expected` such lines. `longest`:
    transactions of more bytes, or with a line of several lines, get a process of their own; None
    for no limit. `lifetime`: after so many transactions the open process is replaced.
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
        """One transaction, as the tool reads it; rules of others in it have the bytes they had."""
        return (self.header + joint.join(lines) + self.footer).encode("utf-8", "surrogateescape")

    def needs_its_own(self, lines: Sequence[str], text: bytes) -> bool:
        """Whether a transaction is too much for the tool that stays open."""
        return self.longest is not None and (
            len(text) > self.longest or any("\n" in line for line in lines)
        )
