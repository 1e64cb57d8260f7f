"""What the periodic comparison of the kernel's rules with the wanted ones costs the reactor.

    tools/in-namespace .venv/bin/python -m benchmarks.comparison [GRANTS, 1000] [KIND...]

Prints CPU of the reactor's thread, in milliseconds: for one comparison of all address families with
its repairs, and for the longest single event in it. Both are the minimum of several comparisons,
because other work on the machine only adds; for the event the maximum is shown too. The process has
as many descriptors open as it would have with so many clients. The child processes that read the
rules are not counted, because they do not block the reactor.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react

from benchmarks.timedreactor import install
from envelope.addresses import PortRange
from envelope.config import Config
from envelope.firewall import GrantId
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.iptables.incremental import Rereader
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import NftablesFirewall
from envelope.metrics import new_registry
from envelope.runtime.collector import Collector
from envelope.runtime.reactor import spawn_cheaply

_TIMES = 9
# Clients that connect, and clients that leave, within ten seconds on a busy server.
_CHURN = 200
_SBIN = Path("/usr/sbin")
KINDS = ("iptables-nft", "iptables-legacy", "nftables")
_ONE = "10.0.0.0"


def make_firewall(
    kind: str, reactor: Any, trust: float = 60.0, device: str = "lo", prefix: int | None = None
) -> Any:
    """A firewall of one of `KINDS` that makes no comparison by itself.

    `prefix` is how many bits a grant opens, of either address family.
    """
    never = 1e9
    metrics = FirewallMetrics(new_registry())
    if kind == "nftables":
        return NftablesFirewall(
            reactor, _config(device, prefix), metrics, check_every=never, trust=trust
        )
    config = replace(
        _config(device, prefix), iptables=_SBIN / kind,
        ip6tables=_SBIN / kind.replace("iptables", "ip6tables"),
    )
    return IptablesFirewall(reactor, config, metrics, check_every=never)


def _config(device: str, prefix: int | None) -> Config:
    if prefix is None:
        return Config(device=device)
    return Config(device=device, grant_prefix4=min(prefix, 32), grant_prefix6=prefix)


def _run(*words: str) -> None:
    subprocess.run([_SBIN / words[0], *words[1:]], check=True, stdout=subprocess.DEVNULL)


class _Strangers:
    """Changes to the rules by others."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def add(self) -> None:
        """Add a rule of theirs among our grants."""
        if self._kind == "nftables":
            _run("nft", "add rule inet envelope grants counter")
        else:
            _run(self._kind, "-A", "ENVELOPE-GRANTS", "-p", "udp", "-m", "comment", "--comment",
                 "theirs", "-j", "DROP")

    def delete(self) -> None:
        """Delete the grant of one client."""
        if self._kind == "nftables":
            _run("nft", f"delete element inet envelope grants4 {{ {_ONE} }}")
        else:
            text = subprocess.run([_SBIN / f"{self._kind}-save", "-t", "filter"], check=True,
                                  capture_output=True, text=True).stdout
            rule = next(line for line in text.splitlines() if f" {_ONE}/" in line)
            _run(self._kind, "-D", *rule.split()[1:])

    def flush(self) -> None:
        """Delete all grants."""
        if self._kind == "nftables":
            _run("nft", "flush set inet envelope grants4")
        else:
            _run(self._kind, "-F")


class _Bench:
    """A firewall with many grants."""

    def __init__(self, reactor: Any, kind: str, grants: int) -> None:
        self._reactor = reactor
        self.kind = kind
        self.firewall = make_firewall(kind, reactor)
        self._end = reactor.seconds() + 3600
        self._grants = [ip_network((10 << 24) + number) for number in range(grants)]
        self._fresh = (ip_network((11 << 24) + number) for number in range(1 << 24))
        self._passing: list[Any] = []
        self._collector = Collector(reactor, lambda: grants)

    async def open(self) -> None:
        """Open the firewall and make all grants."""
        # As the service does.
        self._collector.start()
        await self.firewall.open((PortRange("tcp", 8880, 8880),))
        await self._allow(self._grants)

    async def close(self) -> None:
        """Revoke all grants and close the firewall."""
        await self.firewall.close()
        self._collector.stop()

    async def _allow(self, networks: list[Any]) -> None:
        await gatherResults([self.firewall.allow(GrantId(each), self._end) for each in networks])

    async def churn(self) -> None:
        """Make some grants, and revoke those of the last call."""
        gone, self._passing = self._passing, [next(self._fresh) for _ in range(_CHURN)]
        await self._allow(self._passing)
        await gatherResults([self.firewall.revoke(GrantId(each)) for each in gone])

    def forget(self) -> None:
        """Drop what was read, so that the next comparison reads everything."""
        for table, _ in self.firewall._tables:
            if self.kind == "nftables":
                table._certainty.know(None)
            else:
                table._reader = Rereader()

    async def look(self) -> tuple[float, float]:
        """Make one comparison; returns its milliseconds, and those of its longest event."""
        await deferLater(self._reactor, 0)
        self._reactor.times.forget()
        began = time.thread_time()
        self.firewall._check()
        await gatherResults([
            reconciler._working for _, reconciler in self.firewall._tables if reconciler._working
        ])
        spent = time.thread_time() - began
        # The event that ends the comparison is counted after it is over.
        await deferLater(self._reactor, 0)
        return spent * 1000, self._reactor.times.event_cpu * 1000

    async def looks(
        self, change: Callable[[], Awaitable[None] | None], times: int = _TIMES
    ) -> tuple[float, float, float]:
        """The minimum of both after each `change`, and the maximum of the longest event."""
        found = []
        for _ in range(times):
            for _ in range(2):
                await self.look()
            done = change()
            if done is not None:
                await done
            found.append(await self.look())
        spent, events = zip(*found, strict=True)
        return min(spent), min(events), max(events)


async def _measure(reactor: Any, kind: str, grants: int) -> None:
    bench = _Bench(reactor, kind, grants)
    strangers = _Strangers(kind)
    await bench.open()
    try:
        found = {"first look": await bench.looks(bench.forget)}
        found["nothing changed"] = await bench.looks(lambda: None)
        found[f"{_CHURN} of ours came, {_CHURN} went"] = await bench.looks(bench.churn)
        found["a rule of others came"] = await bench.looks(strangers.add)
        found["one grant was deleted"] = await bench.looks(strangers.delete)
        found["all grants were flushed"] = await bench.looks(strangers.flush, times=3)
    finally:
        await bench.close()
    for case, figures in found.items():
        print(f"{kind:16}{case:32}" + "".join(f"{each:10.1f}" for each in figures), flush=True)


async def _main(reactor: Any, grants: int, kinds: tuple[str, ...]) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(grants)]
    print(f"{grants} grants, milliseconds of CPU {'a look':>24}{'event':>10}{'at most':>10}")
    try:
        for kind in kinds:
            await _measure(reactor, kind, grants)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def main(grants: str = "1000", *kinds: str) -> None:
    """See the module."""
    reactor = install()
    spawn_cheaply(reactor)
    react(lambda _: ensureDeferred(_main(reactor, int(grants), kinds or KINDS)), [])


if __name__ == "__main__":
    main(*sys.argv[1:])
