"""`envelope rules`: print the exact rules that a start with these options would install."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Final

from twisted.python.usage import UsageError

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.config.listen import ListenSpec
from envelope.firewall.iptables import rules_text
from envelope.firewall.nftables import nft_text
from envelope.firewall.policy import IPV4, IPV6, RuleChoices

USAGE: Final = """\
Usage: envelope rules [service options]

Prints the exact rules that a start with these options would install; changes nothing.
"""


def choices_of(config: Config) -> RuleChoices:
    """What the rules are made from; of the service's ports, those that the options name."""
    closed = [spec for spec in (*config.admin, *config.status) if not spec.local]
    return RuleChoices.of(config, _ports(config.listen), _ports(closed))


def _ports(specs: Iterable[ListenSpec]) -> tuple[PortRange, ...]:
    ports = sorted({spec.port for spec in specs if spec.port})
    return tuple(PortRange("tcp", port, port) for port in ports)


def main(argv: list[str]) -> int:
    """Print the rules; the exit status is 2 for options that a start would refuse."""
    from envelope.config.options import ServiceOptions, parse

    if "--help" in argv:
        print(f"{USAGE}{ServiceOptions().getUsage()}", end="")
        return 0
    try:
        config = parse(argv, os.environ)
    except UsageError as error:
        print(f"envelope rules: {error}", file=sys.stderr)
        return 2
    if config.firewall == "none":
        print("# the firewall is not managed: no rules")
        return 0
    choices = choices_of(config)
    for spec in config.listen:
        if not spec.port and not spec.unix:
            print(f"# the port of --listen={spec} is known once the service listens")
    if config.firewall == "nftables":
        print(nft_text(choices))
        return 0
    for family in (IPV4, IPV6):
        print(rules_text(choices, family))
    return 0
