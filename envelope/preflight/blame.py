"""Which chain of others drops a packet: they are emptied one after the other until it passes.

Only in a network of this process's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from envelope.firewall.errors import ToolFailed
from envelope.preflight.commands import command
from envelope.preflight.hostrules import HostRules
from envelope.preflight.packets import Target

# The order in which a packet meets the hooks of netfilter.
_HOOKS: Final = ("ingress", "prerouting", "input", "output", "postrouting", "egress")
_CHAINS: Final = (
    ("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("nat", "PREROUTING"), ("mangle", "INPUT"),
    ("filter", "INPUT"), ("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"),
)
OURS: Final = "inet envelope"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that packets meet, and the commands that empty it; `diverts` is set for nat's."""

    name: str
    diverts: bool
    empty: tuple[tuple[str, ...], ...]


def chains(rules: HostRules, nft: str | None, run: Callable[..., str] = command) -> Iterator[Chain]:
    """The chains at the kernel's hooks, in the order in which packets meet them."""
    listed = ""
    if nft is not None:
        try:
            listed = run((nft, "-j", "list", "chains"))
        except ToolFailed:
            # One that was built without JSON is as good as none.
            nft = None
    for (_, kind), part in rules.saved.items():
        if kind == "legacy" or nft is None:
            tool = part.load[0].removesuffix("-restore")
            for table, name in _CHAINS:
                if f"*{table}\n" in part.text:
                    of_table = (tool, "-t", table)
                    yield Chain(
                        f"chain {name} of {part.name}'s table {table}", table == "nat",
                        ((*of_table, "-F", name), (*of_table, "-P", name, "ACCEPT")),
                    )
    if nft is not None:
        yield from read_chains(listed, nft)


def read_chains(listed: str, nft: str) -> list[Chain]:
    """The chains of others at hooks, from what `nft -j list chains` prints. Pure."""
    found = []
    for each in json.loads(listed)["nftables"]:
        chain = each.get("chain", {})
        table = f"{chain.get('family')} {chain.get('table')}"
        if chain.get("hook") not in _HOOKS or table == OURS:
            continue
        empty = f"flush chain {table} {chain['name']}"
        if chain.get("policy") == "drop":
            empty += f"; chain {table} {chain['name']} {{ policy accept; }}"
        place = (_HOOKS.index(chain["hook"]), int(chain.get("prio", 0)))
        name = f"chain {chain['name']} of table {table}"
        found.append((place, Chain(name, chain.get("type") == "nat", ((nft, empty),))))
    return [chain for _, chain in sorted(found, key=lambda pair: pair[0])]


def blame(
    dropped: set[Target], suspects: Iterator[Chain],
    reached: Callable[[set[Target]], set[Target]], run: Callable[..., str] = command,
) -> Mapping[Target, Chain]:
    """The chain that drops each of `dropped`, without those that no emptying lets pass."""
    guilty: dict[Target, Chain] = {}
    left = set(dropped)
    for chain in suspects:
        try:
            for argv in chain.empty:
                run(argv)
        except ToolFailed:
            continue
        now = reached(left)
        guilty.update(dict.fromkeys(now, chain))
        left -= now
        if not left:
            break
    return guilty
