"""A start that is killed once its rules are in force, as a program: `KIND [OPTION=VALUE]`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from envelope.config import Config
from envelope.firewall.backends import make_firewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.metrics import new_registry
from tests.kernel.firewallundertest import FAMILY_TOOLS, SERVICE


def main(kind: str, *options: str) -> None:
    """Start, and be killed when the kernel's setting is to be changed or restored."""
    paths = {name: Path(f"/usr/sbin/{name}-{kind}") for name in FAMILY_TOOLS.values()}
    chosen: dict[str, Any] = dict(option.split("=") for option in options)
    config = Config(device="lo", firewall="iptables", **paths, **chosen)
    firewall: Any = make_firewall(reactor, config, FirewallMetrics(new_registry()), "/usr/sbin")
    firewall._flows.start = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    opened = firewall.open(SERVICE).addErrback(lambda failure: failure.printTraceback())
    opened.addCallback(lambda _: reactor.stop())
    reactor.run()


main(*sys.argv[1:])
