"""The rules of this network, read with every tool there is, and loaded into another network."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeAlias

from envelope.config import Config
from envelope.firewall.errors import ToolFailed
from envelope.netlink import NETLINK_NETFILTER, Netlink, attributes
from envelope.preflight.commands import command, find
from envelope.preflight.loadable import loadable_save, loadable_table

Kind: TypeAlias = Literal["nft", "legacy"]
# Tables that iptables-nft makes, by its own names of their families.
_OF_IPTABLES: Final = ("filter", "nat", "mangle", "raw", "security")
_FAMILIES: Final = {"iptables": "ip", "ip6tables": "ip6"}
# linux/netfilter/nf_tables.h and linux/netfilter.h
_GET_TABLE: Final = 10 << 8 | 1
_FAMILY_NAMES: Final = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
# What only iptables can load, in rules without the texts that they quote: nft shows a match or a
# target that it does not know as "xt match NAME", or behind a "#".
_OF_IPTABLES_ALONE: Final = re.compile(r"(?m)^\t\t.*(?:#|\bxt (?:match|target)\b)")
_QUOTED: Final = re.compile(r'"[^"\n]*"')
# A rule that nft wrote: those of iptables all count.
_OF_NFT: Final = re.compile(
    r"(?m)^\t\t(?!type |policy |comment |flags |elements |\t)(?!.*\bcounter packets ).*\S")
_CHAIN: Final = re.compile(r"(?ms)^\tchain \S+ \{$.*?^\t\}$")
_LISTS: Final = {"iptables": "ip_tables_names", "ip6tables": "ip6_tables_names"}


@dataclass(frozen=True, slots=True)
class Part:
    """Rules that one command loads; `text` is what the tool printed, as it can be loaded."""

    name: str
    text: str
    load: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it refuses and diverts nothing: no rule, and no policy but ACCEPT."""
        rules = re.search(r"(?m)^-A |^:\S+ DROP |^\t\t(?!type |comment )\S", self.text)
        return rules is None and "policy drop" not in self.text


@dataclass(slots=True)
class HostRules:
    """What was read; `unread` says what could not be, a line each.

    `saved` are the tables of iptables, by tool and kind; `tables` those of nft, without the ones
    that iptables-nft shows, unless nft has put rules into them. `sets` are those of ipset.
    """

    saved: dict[tuple[str, Kind], Part] = field(default_factory=dict)
    tables: dict[str, Part] = field(default_factory=dict)
    sets: Part | None = None
    unread: list[str] = field(default_factory=list)

    def parts(self) -> list[Part]:
        """Everything, in the order in which it can be loaded."""
        first = [self.sets] if self.sets is not None else []
        return [*first, *self.saved.values(), *self.tables.values()]

    def load(self, run: Callable[..., str] = command) -> list[str]:
        """Load it into this process's network; return what could not be, a line each."""
        problems = []
        for part in self.parts():
            try:
                run(part.load, part.text)
            except ToolFailed as error:
                problems.append(f"{part.name} ({error})")
        return problems


def list_tables() -> list[str]:
    """The tables of nftables that the kernel has, such as "inet filter"; raise `OSError`."""
    kernel = Netlink(NETLINK_NETFILTER)
    try:
        return [read_table(body) for body in kernel.dump(_GET_TABLE, bytes(4))]
    except OSError as error:
        if error.errno == errno.EINVAL:
            return []  # it has no nftables
        raise
    finally:
        kernel.close()


def read_table(body: bytes) -> str:
    """The name of a table in a message of the kernel's. Pure."""
    name = attributes(body, 4).get(1, b"").rstrip(b"\0").decode("utf-8", "replace")
    return f"{_FAMILY_NAMES.get(body[0], body[0])} {name}"


def read_rules(
    config: Config, search_path: str, proc: Path = Path("/proc/net"),
    tables: Callable[[], list[str]] = list_tables,
) -> HostRules:
    """Read the rules of this network; changes nothing. `tables` names those of nft without nft."""
    rules = HostRules()
    unprinted = []
    for tool in _FAMILIES:
        rules.unread += _read_kind(rules, tool, "legacy", search_path, proc)
        unprinted += _read_kind(rules, tool, "nft", search_path, proc)
    nft = find("nft", search_path, config.nft)
    if nft is None:
        rules.unread += [*unprinted, *_without_nft(rules, tables)]
    elif not _read_nft(rules, nft):
        rules.unread += unprinted
    _read_sets(rules, search_path)
    return rules


def _read_kind(
    rules: HostRules, tool: str, kind: Kind, search_path: str, proc: Path
) -> list[str]:
    """Read the tables of one tool; return what could not be read."""
    if kind == "legacy":
        try:
            if not (proc / _LISTS[tool]).read_text().split():
                return []
        except FileNotFoundError:
            return []
        except OSError as error:
            return [f"{tool}-legacy: {proc / _LISTS[tool]}: {error.strerror}"]
    save = _save_tool(tool, kind, search_path)
    restore = None if save is None else find(f"{save.removesuffix('-save')}-restore", search_path)
    if save is None or restore is None:
        if kind == "nft":
            return []
        return [f"{tool}-legacy: the kernel has its tables, and the tool is not installed"]
    try:
        text = command((save,))
    except ToolFailed as error:
        return [f"{tool}-{kind}: {error}"]
    if re.search(r"(?m)^\*", text):
        rules.saved[tool, kind] = Part(f"{tool}-{kind}", loadable_save(text), (restore,))
    return []


def _save_tool(tool: str, kind: Kind, search_path: str) -> str | None:
    if found := find(f"{tool}-{kind}-save", search_path):
        return found
    # Where no tool bears the kind's name, the plain one may be of this kind.
    plain = find(f"{tool}-save", search_path)
    try:
        told = "" if plain is None else command((plain, "--version"))
    except ToolFailed:
        return None
    return plain if told and ("nf_tables" in told) == (kind == "nft") else None


def _read_nft(rules: HostRules, nft: str) -> bool:
    """Read the tables of nft; return whether they could be listed, those of iptables-nft too."""
    try:
        names = re.findall(r"(?m)^table (\S+) (\S+)$", command((nft, "list", "tables")))
    except ToolFailed as error:
        rules.unread.append(f"tables of nftables: {error}")
        return False
    for family, name in names:
        tool = _shown_by(rules, family, name)
        try:
            text = command((nft, "list", "table", family, name))
        except ToolFailed as error:
            if tool is None:
                rules.unread.append(f"table {family} {name}: {error}")
            continue
        if tool is not None:
            if not _is_of_nft(text, rules.saved[tool, "nft"].text, name):
                continue
            if _OF_IPTABLES_ALONE.search(_QUOTED.sub("", text)):
                rules.unread.append(f"table {family} {name} has rules of nft beside some that only "
                                    f"{tool} can load")
                continue
            _leave_out(rules, tool, name)
        part = Part(f"table {family} {name}", loadable_table(text), (nft, "-f", "-"))
        rules.tables[f"{family} {name}"] = part
    return True


def _without_nft(rules: HostRules, tables: Callable[[], list[str]]) -> list[str]:
    try:
        others = [each for each in tables() if _shown_by(rules, *each.split(" ", 1)) is None]
    except OSError as error:
        return [f"tables of nftables: nft is not installed, and the kernel says {error.strerror}"]
    return [f"tables of nftables ({', '.join(others)}): nft is not installed"] if others else []


def _is_of_nft(listed: str, saved: str, name: str) -> bool:
    """Whether a table that iptables-nft shows has more than it can show, or can show rightly."""
    if re.search(rf"(?m)^# Table `{name}' .*incompatible", saved):
        return True
    return any(_OF_NFT.search(chain) for chain in _CHAIN.findall(listed))


def _leave_out(rules: HostRules, tool: str, name: str) -> None:
    part = rules.saved.pop((tool, "nft"))
    text = re.sub(rf"(?ms)^\*{name}$.*?^COMMIT$", "", part.text)
    if re.search(r"(?m)^\*", text):
        rules.saved[tool, "nft"] = Part(part.name, text, part.load)


def _shown_by(rules: HostRules, family: str, name: str) -> str | None:
    """The tool of iptables that shows a table of nft's."""
    for tool, its_family in _FAMILIES.items():
        part = rules.saved.get((tool, "nft"))
        if (its_family == family and name in _OF_IPTABLES and part is not None
                and re.search(rf"(?m)^\*{name}$", part.text)):
            return tool
    return None


def _read_sets(rules: HostRules, search_path: str) -> None:
    if not any("-set " in part.text for part in rules.saved.values()):
        return
    ipset = find("ipset", search_path)
    if ipset is None:
        rules.unread.append("sets that rules name: ipset is not installed")
        return
    try:
        rules.sets = Part("sets of ipset", command((ipset, "save")), (ipset, "restore"))
    except ToolFailed as error:
        rules.unread.append(f"sets that rules name: {error}")
