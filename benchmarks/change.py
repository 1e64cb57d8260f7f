"""How long one grant and one revocation take, alone and among many other grants.

    tools/in-namespace .venv/bin/python -m benchmarks.change [GRANTS, 10000]

Prints median milliseconds from the call to its answer, with no other grant and among GRANTS. The
two cases take turns, so that load on the machine affects both.
"""

from __future__ import annotations

import sys
import time
from ipaddress import ip_network
from statistics import median
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import react

from benchmarks.comparison import KINDS, make_firewall
from envelope.addresses import PortRange
from envelope.firewall import GrantId

_ROUNDS = 3
_CHANGES = 100


async def _changes(reactor: Any, firewall: Any, found: dict[str, list[float]]) -> None:
    for number in range(_CHANGES):
        network = ip_network(f"198.51.100.{number}/32")
        began = time.perf_counter()
        await firewall.allow(GrantId(network), reactor.seconds() + 3600)
        granted = time.perf_counter()
        await firewall.revoke(GrantId(network))
        found["grant"].append((granted - began) * 1000)
        found["revoke"].append((time.perf_counter() - granted) * 1000)


async def _compare(reactor: Any, kind: str, grants: int) -> None:
    many = [ip_network(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32") for n in range(grants)]
    found: dict[int, dict[str, list[float]]] = {
        number: {"grant": [], "revoke": []} for number in (0, grants)
    }
    firewall = make_firewall(kind, reactor)
    await firewall.open((PortRange("tcp", 8880, 8880),))
    try:
        for _ in range(_ROUNDS):
            await _changes(reactor, firewall, found[0])
            end = reactor.seconds() + 3600
            await gatherResults([firewall.allow(GrantId(n), end) for n in many])
            await _changes(reactor, firewall, found[grants])
            await gatherResults([firewall.revoke(GrantId(n)) for n in many])
    finally:
        await firewall.close()
    for what in ("grant", "revoke"):
        alone, among = (median(found[number][what]) for number in (0, grants))
        print(f"{kind:16} {what:7} {alone:8.2f} {among:8.2f} {among / alone:6.2f}", flush=True)


async def _main(reactor: Any, grants: int) -> None:
    print(f"{'':16} {'':7} {'alone':>8} {grants:8} {'ratio':>6}")
    for kind in KINDS:
        await _compare(reactor, kind, grants)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    react(lambda reactor: ensureDeferred(_main(reactor, number)))
