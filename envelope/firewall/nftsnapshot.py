"""Our table, read from what `nft -a list table` prints. Pure.

Elements of sets are kept as lines: there may be thousands, and `nftelements` reads them piece by
piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from envelope.firewall.nftruleset import TABLE
from envelope.firewall.snapshot import UnreadableRules

_OPENING: Final = re.compile(r"\t(?P<kind>[a-z]+) (?P<name>\S+) \{(?: # handle \d+)?")
_RULE: Final = re.compile(r"(?P<text>.*) # handle (?P<handle>\d+)", re.DOTALL)
_HOOK: Final = re.compile(r"type .*;")
_COMMENT: Final = re.compile(r'comment "[^"]*"')
_ELEMENTS: Final = "elements = { "
_EXPIRES: Final = re.compile(rb" expires [0-9a-z]+")


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
    """One set: how it is declared, and the lines of its elements."""

    declaration: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()


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
        lines = iter(text.splitlines())
        if not next(lines).startswith(f"table {TABLE} {{"):
            raise UnreadableRules("nft shows something else than our table")
        flags: list[str] = []
        sets: dict[str, SetShown] = {}
        chains: dict[str, Chain] = {}
        for line in lines:
            if line == "}":
                return cls(True, tuple(flags), sets, chains)
            opening = _OPENING.fullmatch(line)
            if opening is None:
                flags += [line.strip()] if line.strip() else []
                continue
            content = _until_closed(lines)
            if opening["kind"] == "chain":
                chains[opening["name"]] = _chain(content)
            elif opening["kind"] == "set":
                sets[opening["name"]] = _set(content)
        raise UnreadableRules("the text ends before our table does")

    @classmethod
    def of(cls, output: bytes) -> NftSnapshot:
        """Read what nft printed; raise `UnreadableRules`."""
        return cls.parse(output.decode("utf-8", "replace"))


def without_clocks(output: bytes) -> bytes:
    """What nft printed, but for what runs down by itself."""
    return _EXPIRES.sub(b"", output)


def _until_closed(lines: Iterator[str]) -> list[str]:
    content: list[str] = []
    for line in lines:
        if line == "\t}":
            return content
        content.append(line.strip())
    raise UnreadableRules("the text ends within our table")


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


def _set(content: list[str]) -> SetShown:
    for number, line in enumerate(content):
        if line.startswith(_ELEMENTS):
            first = line.removeprefix(_ELEMENTS)
            return SetShown(tuple(content[:number]), (first, *content[number + 1:]))
    return SetShown(tuple(content))
