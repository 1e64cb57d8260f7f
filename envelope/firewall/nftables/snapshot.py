"""Our table as `nft -a list table` prints it, read into values. Pure.

Elements of sets are kept as text: there may be thousands, and `nftables.grants` reads them piece by
piece.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from envelope.firewall.errors import UnreadableRules
from envelope.firewall.nftables.rules import TABLE

_OPENING: Final = re.compile(r"\t(?P<kind>[a-z]+) (?P<name>\S+) \{(?: # handle \d+)?")
_RULE: Final = re.compile(r"(?P<text>.*) # handle (?P<handle>\d+)", re.DOTALL)
_HOOK: Final = re.compile(r"type .*;")
_COMMENT: Final = re.compile(r'comment "[^"]*"')
_ELEMENTS: Final = "\n\t\telements = { "


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `handle` is the number that the kernel knows it by."""

    text: str
    handle: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain; `hook` is where the kernel calls it and its policy, empty when it does not."""

    hook: str = ""
    rules: tuple[Rule, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The rules' texts."""
        return tuple(rule.text for rule in self.rules)


@dataclass(frozen=True, slots=True)
class SetShown:
    """One set: how it is declared, and the text of its elements, `10.0.0.1, 10.0.0.2 }`."""

    declaration: tuple[str, ...] = ()
    elements: str = ""


@dataclass(frozen=True, slots=True)
class NftSnapshot:
    """Our table; `exists` is False while the kernel has none. `flags` are the table's own."""

    exists: bool = False
    flags: tuple[str, ...] = ()
    sets: dict[str, SetShown] = field(default_factory=dict)
    chains: dict[str, Chain] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> NftSnapshot:
        """Read what nft printed; nothing at all is no table. Raise `UnreadableRules`."""
        if not text:
            return cls()
        line, _, rest = text.partition("\n")
        if not line.startswith(f"table {TABLE} {{"):
            raise UnreadableRules("nft shows something else than our table")
        flags: list[str] = []
        sets: dict[str, SetShown] = {}
        chains: dict[str, Chain] = {}
        position = 0
        while position < len(rest):
            end = _end_of(rest, "\n", position)
            line, position = rest[position:end], end + 1
            if line == "}":
                return cls(True, tuple(flags), sets, chains)
            opening = _OPENING.fullmatch(line)
            if opening is None:
                flags += [line.strip()] if line.strip() else []
                continue
            # Searched from the end of the opening line, for a block that is empty.
            closing = _end_of(rest, "\n\t}\n", end)
            content, position = rest[end + 1:closing], closing + len("\n\t}\n")
            if opening["kind"] == "chain":
                chains[opening["name"]] = _chain(_lines(content))
            elif opening["kind"] == "set":
                sets[opening["name"]] = _set(content)
        raise UnreadableRules("the text ends before our table does")

    @classmethod
    def of(cls, output: bytes) -> NftSnapshot:
        """Read what nft printed; raise `UnreadableRules`."""
        return cls.parse(output.decode("utf-8", "replace"))


def _end_of(text: str, mark: str, position: int) -> int:
    end = text.find(mark, position)
    if end < 0:
        raise UnreadableRules("the text ends within our table")
    return end


def _lines(content: str) -> list[str]:
    return [line.strip() for line in content.split("\n")] if content else []


def _chain(content: list[str]) -> Chain:
    hook = ""
    rules: list[Rule] = []
    pending: list[str] = []
    for line in content:
        if not pending and not rules and _HOOK.fullmatch(line):
            hook = line
            continue
        if not pending and not rules and _COMMENT.fullmatch(line):
            continue
        # A long rule may be printed in several lines; its handle is at the end of the last.
        pending.append(line)
        match = _RULE.fullmatch("\n".join(pending))
        if match is not None:
            rules.append(Rule(match["text"], int(match["handle"])))
            pending = []
    return Chain(hook, tuple(rules))


def _set(content: str) -> SetShown:
    # There may be thousands of lines of elements.
    declaration, found, elements = content.partition(_ELEMENTS)
    return SetShown(tuple(_lines(declaration)), elements if found else "")
