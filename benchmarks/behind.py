"""How long a grant takes right after a revocation, and after pauses of different lengths.

    tools/in-namespace .venv/bin/python -m benchmarks.behind

Prints the median milliseconds from `allow` to its answer, by the pause since the last revocation.
After iptables-nft has deleted a rule, the kernel waits until no CPU uses that rule any more
(synchronize_rcu, from nf_tables' destroy work) before it adds a rule with an xtables match
(nft_compat). A grant has such a match, `-m time`; without it a grant would not end by itself.
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
from envelope.firewall import GrantId

# Pauses in milliseconds.
PAUSES: Final = (0, 2, 5, 10, 20, 50)
_CHANGES: Final = 40


async def _wait(reactor: Any, firewall: Any, pause: int) -> float:
    network = ip_network("198.51.100.7/32")
    waited: list[float] = []
    for _ in range(_CHANGES):
        await deferLater(reactor, pause / 1000)
        began = time.perf_counter()
        await firewall.allow(GrantId(network), time.time() + 3600)
        waited.append((time.perf_counter() - began) * 1000)
        await firewall.revoke(GrantId(network))
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
