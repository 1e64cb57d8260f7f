"""A table `inet envelope` in memory that takes nft's commands and prints as nft does.

It understands only the commands that our plans use. What the kernel would refuse raises `Refused`,
and then nothing of the transaction is applied.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from itertools import count

TABLE = "inet envelope"


class Refused(Exception):
    """The kernel refuses the transaction."""


@dataclass
class ModelChain:
    """One chain; rules are (text, handle)."""

    hook: str = ""
    rules: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class ModelTable:
    """The table: chains, and sets with declarations and elements (timeouts in ms; None: no end)."""

    flags: str = ""
    chains: dict[str, ModelChain] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    elements: dict[str, dict[str, int | None]] = field(default_factory=dict)


class FakeNft:
    """The kernel's side of the table."""

    def __init__(self) -> None:
        self.table: ModelTable | None = None
        self.handles = count(100)

    def apply(self, lines: list[str]) -> None:
        """Apply one transaction, all of it or nothing."""
        before = copy.deepcopy(self.table)
        try:
            for line in lines:
                self._block(line) if line.startswith("table ") else self._command(line)
            self._check()
            woken = before and before.flags and self.table and not self.table.flags
            if woken and any("delete chain" in line for line in lines):
                raise Refused("a table cannot wake while its hooks change")
        except Refused:
            self.table = before
            raise

    def printed(self) -> str:
        """The output of `nft -a list table`; empty without a table."""
        table = self.table
        if table is None:
            return ""
        lines = [f"table {TABLE} {{ # handle 1"]
        lines += [f"\tflags {table.flags}"] if table.flags else []
        for name, declaration in table.sets.items():
            lines += [f"\tset {name} {{ # handle 7",
                      *(f"\t\t{part.strip()}" for part in declaration.split(";") if part.strip())]
            elements = [
                each if lasts is None else f"{each} timeout {lasts}ms expires {lasts}ms"
                for each, lasts in sorted(table.elements[name].items())
            ]
            if elements:
                pairs = [", ".join(elements[n:n + 2]) for n in range(0, len(elements), 2)]
                lines.append("\t\telements = { " + ",\n\t\t\t     ".join(pairs) + " }")
            lines += ["\t}", ""]
        for name, chain in table.chains.items():
            lines.append(f"\tchain {name} {{ # handle 8")
            lines += [f"\t\t{chain.hook}"] if chain.hook else []
            lines += [f"\t\t{_as_printed(text)} # handle {handle}" for text, handle in chain.rules]
            lines += ["\t}", ""]
        return "\n".join([*lines[:-1], "}", ""])

    # -- commands --------------------------------------------------------------------------

    def _there(self) -> ModelTable:
        if self.table is None:
            raise Refused("no table")
        return self.table

    def _chain(self, name: str) -> ModelChain:
        try:
            return self._there().chains[name]
        except KeyError:
            raise Refused(f"no chain {name}") from None

    def _block(self, text: str) -> None:
        if self.table is None:
            self.table = ModelTable()
        blocks = re.findall(r"^\t(set|chain) (\S+) \{\n(.*?)^\t\}", text, re.S | re.M)
        for kind, name, content in blocks:
            lines = [line.strip() for line in content.splitlines()]
            if kind == "set":
                self._command(f"add set {TABLE} {name} {{ {' '.join(lines)} }}")
                continue
            hook = lines.pop(0) if lines and lines[0].startswith("type ") else ""
            self._command(f"add chain {TABLE} {name}" + (f" {{ {hook} }}" if hook else ""))
            for line in lines:
                self._command(f"add rule {TABLE} {name} {line}")

    def _command(self, line: str) -> None:
        verb, kind, rest = line.split(" ", 2)
        rest = rest.removeprefix(TABLE).strip()
        getattr(self, f"_{verb}_{kind}")(*([rest] if rest else []))

    def _add_table(self) -> None:
        self.table = self.table or ModelTable()
        self.table.flags = ""

    def _delete_table(self) -> None:
        self._there()
        self.table = None

    def _add_set(self, rest: str) -> None:
        name, _, declaration = rest.partition(" ")
        self._there().sets.setdefault(name, declaration.strip("{} "))
        self._there().elements.setdefault(name, {})

    def _delete_set(self, name: str) -> None:
        if name not in self._there().sets:
            raise Refused(f"no set {name}")
        del self._there().sets[name], self._there().elements[name]

    def _flush_set(self, name: str) -> None:
        if name not in self._there().sets:
            raise Refused(f"no set {name}")
        self._there().elements[name] = {}

    def _add_chain(self, rest: str) -> None:
        name, _, hook = rest.partition(" ")
        chain = self._there().chains.setdefault(name, ModelChain(hook.strip("{} ")))
        if hook:
            wanted = hook.strip("{} ")
            if chain.hook.partition("policy")[0] != wanted.partition("policy")[0]:
                raise Refused("a chain cannot change its hook")
            chain.hook = wanted

    def _flush_chain(self, name: str) -> None:
        self._chain(name).rules.clear()

    def _delete_chain(self, name: str) -> None:
        if self._chain(name).rules:
            raise Refused("a chain with rules stays")
        del self._there().chains[name]

    def _add_rule(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        rules = self._chain(name).rules
        place = len(rules)
        if match := re.match(r"handle (\d+) ", text):
            place = self._place(name, int(match[1])) + 1
            text = text[match.end():]
        rules.insert(place, (text, next(self.handles)))

    def _insert_rule(self, rest: str) -> None:
        name, _, text = rest.partition(" ")
        rules, place = self._chain(name).rules, 0
        if match := re.match(r"handle (\d+) ", text):
            place = self._place(name, int(match[1]))
            text = text[match.end():]
        rules.insert(place, (text, next(self.handles)))

    def _delete_rule(self, rest: str) -> None:
        name, _, handle = rest.partition(" handle ")
        del self._chain(name).rules[self._place(name, int(handle))]

    def _place(self, name: str, handle: int) -> int:
        for place, (_, known) in enumerate(self._chain(name).rules):
            if known == handle:
                return place
        raise Refused(f"no rule {handle}")

    def _add_element(self, rest: str) -> None:
        name, _, listed = rest.partition(" ")
        if name not in self._there().sets:
            raise Refused(f"no set {name}")
        for each in listed.strip("{} ").split(", "):
            element, _, lasts = each.partition(" timeout ")
            # As in older kernels, an element that exists keeps its timeout.
            self._there().elements[name].setdefault(
                element, _milliseconds(lasts) if lasts else None)

    def _delete_element(self, rest: str) -> None:
        name, _, listed = rest.partition(" ")
        for element in listed.strip("{} ").split(", "):
            if element not in self._there().elements.get(name, {}):
                raise Refused(f"no element {element}")
            del self._there().elements[name][element]

    def _check(self) -> None:
        """Refuse rules that name a chain or a set that does not exist."""
        if self.table is None:
            return
        for chain in self.table.chains.values():
            for text, _ in chain.rules:
                if (match := re.search(r"@(\w+)", text)) and match[1] not in self.table.sets:
                    raise Refused(f"a rule looks into {match[1]}")
                if (match := re.search(r"jump (\w+)", text)) and match[1] not in self.table.chains:
                    raise Refused(f"a rule jumps to {match[1]}")


def _milliseconds(time: str) -> int:
    units = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    parts = re.findall(r"(\d+)(ms|d|h|m|s)", time)
    if any(len(number) > 8 for number, _ in parts):
        raise Refused("value too large")
    return sum(int(number) * units[unit] for number, unit in parts)


def _as_printed(rule: str) -> str:
    """A rule as nft 1.0.6 prints it, which may differ from what it was given."""
    rule = re.sub(r"\{ (\d+) \}", r"\1", rule)
    rule = rule.replace("meta nfproto ipv6 meta l4proto icmpv6", "meta l4proto ipv6-icmp")
    rule = re.sub(r"(& \S+) @", r"\1 == @", rule)
    return rule.replace("reject with icmpx type port-unreachable", "reject")
