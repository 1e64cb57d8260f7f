"""`envelope rules`: print the exact rules that a start with these options would install.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from twisted.python.usage import UsageError

from envelope.config import Config, PortRange
from envelope.firewall import nftplan, nftruleset
from envelope.firewall.kernel import key_of
from envelope.firewall.plan import Structure, install
from envelope.firewall.ruleset import IPV4, IPV6, Family, Layout, grant_rules
from envelope.firewall.snapshot import Snapshot

SYNOPSIS: Final = "print the exact rules a start would install; changes nothing"
_PLACEHOLDER_END: Final = 0


def rules_text(config: Config, family: Family) -> str:
    """One family's start as iptables-restore takes it, with a grant shown as a comment; pure."""
    layout = _layout(config)
    # An empty table: what is there already stays, and is none of this command's business.
    structure = Structure(layout, family, "ACCEPT")
    lines = install(Snapshot(exists=True), structure, ())
    tool = "iptables" if family is IPV4 else "ip6tables"
    shown = [f"# {tool}-restore --noflush", "*filter", *lines, "COMMIT"]
    for rule in grant_rules(layout, key_of(family.example), _PLACEHOLDER_END):
        rule = rule.replace(str(family.example), "NETWORK").replace("1970-01-01T00:00:04", "END")
        shown.append(f"# a grant: -A ENVELOPE-GRANTS {rule.replace('1970-01-01T00:00:00', 'END')}")
    return "\n".join(shown)


def nft_text(config: Config) -> str:
    """The start as nft takes it, with a grant shown as a comment; pure."""
    structure = nftruleset.Structure(_layout(config))
    shown = ["# nft -f", *nftplan.commands(structure)]
    shown += [
        f"# a grant: add element {nftruleset.TABLE} {name} {{ ADDRESS timeout TIME }}"
        for name in nftruleset.ADDRESSES.values()
    ]
    return "\n".join(shown)


def _layout(config: Config) -> Layout:
    ports = (_port_of(text) for text in config.listen)
    return Layout.of(config, tuple(PortRange("tcp", port, port) for port in ports if port))


def _port_of(text: str) -> int:
    digits = text.rpartition(":")[2]
    if not text.startswith(("tcp:", "tcp6:")):
        return int(digits) if digits.isdigit() else 0
    port = text.split(":")[1].removeprefix("port=")
    return int(port) if port.isdigit() else 0


def main(argv: list[str]) -> int:
    """Run the command; 2 for options that a start would refuse."""
    from envelope.options import Options, parse

    if "--help" in argv:
        print(f"envelope rules [service options]: {SYNOPSIS}\n\n{Options()}")
        return 0
    try:
        config = parse(argv, os.environ)
    except UsageError as error:
        print(f"envelope rules: {error}", file=sys.stderr)
        return 2
    if config.firewall == "none":
        print("# the firewall is not managed: no rules")
        return 0
    if config.firewall == "nftables":
        print(nft_text(config))
        return 0
    for family in (IPV4, IPV6):
        print(rules_text(config, family))
    return 0
