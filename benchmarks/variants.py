"""The variants that are compared: ways to manage the firewall."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant: its name in tables, the twistd plugin that runs it, and the plugin's options."""

    name: str
    options: tuple[str, ...]
    plugin: str = "envelope"
    # A command that prints each grant as a line with the client's address; empty without rules.
    list_grants: tuple[str, ...] = ()


def _iptables(name: str, tool: str) -> Variant:
    return Variant(
        name,
        ("--firewall=iptables", f"--iptables=/usr/sbin/{tool}",
         f"--ip6tables=/usr/sbin/ip6{tool[2:]}"),
        list_grants=(f"/usr/sbin/{tool}-save", "-t", "filter"),
    )


NONE = Variant("none", ("--firewall=none",))
IPTABLES = _iptables("iptables", "iptables-nft")
LEGACY = _iptables("iptables-legacy", "iptables-legacy")
NFTABLES = Variant(
    "nftables", ("--firewall=nftables",),
    list_grants=("/usr/sbin/nft", "list", "table", "inet", "envelope"),
)
# Three iptables processes for a grant, three for a revocation (`benchmarks.reference`).
REFERENCE = Variant(
    "reference", ("--firewall=none",), "envelope-reference",
    ("/usr/sbin/iptables-nft-save", "-t", "filter"),
)

# What the fixed packages do by themselves (`benchmarks.bare`).
BARE = Variant("bare", ("--firewall=none",), "envelope-bare")

BACKENDS = {variant.name: variant for variant in (IPTABLES, LEGACY, NFTABLES)}

# The least that a firewall can be, with the same tools (`benchmarks.toolalone`).
ALONE = {
    IPTABLES.name: replace(IPTABLES, name="iptables tool alone", plugin="envelope-toolalone"),
    NFTABLES.name: Variant(
        "nftables tool alone", NFTABLES.options, "envelope-toolalone",
        ("/usr/sbin/nft", "list", "table", "inet", "alone"),
    ),
}


def chosen(
    parser: argparse.ArgumentParser, names: str, known: Mapping[str, Variant]
) -> list[Variant]:
    """The variants of `names`, separated by commas; end with the parser's error for others."""
    wanted = names.split(",")
    if unknown := set(wanted) - set(known):
        parser.error(f"unknown variants: {', '.join(sorted(unknown))}")
    return [known[name] for name in wanted]
