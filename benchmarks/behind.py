"""How long a grant waits that comes right behind a revocation, and how long after nobody does.

    tools/in-namespace .venv/bin/python -m benchmarks.behind

Milliseconds from asking for a grant to its being in force, medians, by the pause since the last
revocation. A kernel that has just deleted a rule of iptables-nft waits for everyone who may still
look at it (synchronize_rcu, from nf_tables' destroy work) before it adds one with a match of
xtables (nft_compat): `-m time`, without which a grant would not end by itself.
"""

from __future__ import annotations

import time
from ipaddress import ip_network
from statistics import median
from typing import Any, Final

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater, react

from benchmarks.comparison import KINDS, make_firewall
from envelope.addresses import PortRange

# Milliseconds.
PAUSES: Final = (0, 2, 5, 10, 20, 50)
_CHANGES: Final = 40


async def _wait(reactor: Any, firewall: Any, pause: int) -> float:
    network = ip_network("198.51.100.7/32")
    waited: list[float] = []
    for _ in range(_CHANGES):
        await deferLater(reactor, pause / 1000)
        began = time.perf_counter()
        await firewall.allow(network, time.time() + 3600)
        waited.append((time.perf_counter() - began) * 1000)
        await firewall.revoke(network)
    return median(waited)


async def _main(reactor: Any) -> None:
    print(f"{'':16}" + "".join(f"{pause:5} ms" for pause in PAUSES))
    for kind in KINDS:
        firewall = make_firewall(kind, reactor)
        await firewall.open((PortRange("tcp", 8880, 8880),))
        try:
            waits = [await _wait(reactor, firewall, pause) for pause in PAUSES]
        finally:
            await firewall.close()
        print(f"{kind:16}" + "".join(f"{wait:8.2f}" for wait in waits), flush=True)


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(_main(reactor)))
