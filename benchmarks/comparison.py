"""What it costs the reactor to compare the kernel's rules with those that should be.

    tools/in-namespace .venv/bin/python -m benchmarks.comparison [GRANTS, from 100]

CPU of the reactor's thread, in milliseconds, for one look at both families: when nothing has
changed since the last one, when a grant has come, and when somebody has deleted one. The child
processes that read the rules are not counted: they hold nothing up.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from statistics import median
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import react

from envelope.config import Config, PortRange
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.nftables import NftablesFirewall
from envelope.metrics import Metrics

_TIMES = 9
_SBIN = Path("/usr/sbin")
_DELETE = {
    "iptables-nft": ["iptables-nft", "-D", "ENVELOPE-GRANTS-0000", "1"],
    "iptables-legacy": ["iptables-legacy", "-D", "ENVELOPE-GRANTS-0000", "1"],
    "nftables": ["nft", "delete element inet envelope grants4 { 10.0.0.0 }"],
}
KINDS = tuple(_DELETE)


def make_firewall(kind: str, reactor: Any) -> Any:
    """A firewall of one of `KINDS` that compares nothing by itself."""
    never = 1e9
    if kind == "nftables":
        return NftablesFirewall(reactor, Config(device="lo"), Metrics(), check_every=never)
    config = Config(
        device="lo", iptables=_SBIN / kind, ip6tables=_SBIN / kind.replace("iptables", "ip6tables")
    )
    return IptablesFirewall(reactor, config, Metrics(), check_every=never)


async def _look(firewall: Any) -> float:
    """Milliseconds of one look."""
    began = time.thread_time()
    firewall._check()
    await gatherResults([
        reconciler._working for _, reconciler in firewall._tables if reconciler._working
    ])
    return (time.thread_time() - began) * 1000


async def _looks(firewall: Any, change: Callable[[int], Any]) -> float:
    found = []
    for number in range(_TIMES):
        for _ in range(2):
            await _look(firewall)
        answer = change(number)
        if answer is not None:
            await answer
        found.append(await _look(firewall))
    return median(found)


async def _measure(reactor: Any, kind: str, grants: int) -> dict[str, float]:
    firewall = make_firewall(kind, reactor)
    await firewall.open((PortRange("tcp", 8880, 8880),))
    until = time.time() + 3600
    networks = [ip_network((10 << 24) + n) for n in range(grants)]
    await gatherResults([firewall.allow(network, until) for network in networks])
    try:
        return {
            "unchanged": await _looks(firewall, lambda _: None),
            "a grant has come": await _looks(
                firewall, lambda n: firewall.allow(ip_network((11 << 24) + n), until)),
            "one was deleted": await _looks(
                firewall, lambda _: subprocess.run([_SBIN / _DELETE[kind][0], *_DELETE[kind][1:]],
                                                   check=True) and None),
        }
    finally:
        await firewall.close()


async def _main(reactor: Any, grants: str = "1000") -> None:
    for kind in _DELETE:
        found = await _measure(reactor, kind, int(grants))
        print(f"{kind}, {grants} grants: " + ", ".join(
            f"{what} {spent:.1f} ms" for what, spent in found.items()))


if __name__ == "__main__":
    react(lambda reactor, *words: ensureDeferred(_main(reactor, *words)), sys.argv[1:])
