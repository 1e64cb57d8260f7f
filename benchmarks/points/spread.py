"""Point 5, whatever the addresses: packets per second of the newest of many guests.

It floods a host from the address that was granted last, for addresses of different shapes, beside a
host without rules and one with a single grant. The firewall stands alone here, without a service.
As a program it holds the rules on such a host, until its standard input ends.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any, Final

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react

from benchmarks.comparison import make_firewall
from benchmarks.lab import REPOSITORY
from benchmarks.plan import Plan, median, turns
from benchmarks.processes import delivered
from envelope.addresses import PortRange
from envelope.firewall import GrantId
from envelope.lab import NetLab

_NET4, _NET6 = "10.0.0.0/8", "2001:db8:8::/45"
_FIRST4, _FIRST6 = int(IPv4Address("10.0.0.0")), int(IPv6Address("2001:db8:a::"))
# Guests of each shape, by their number; the networks that a grant opens.
SHAPES: Final[dict[str, Callable[[int], str]]] = {
    "10.0.x.y, in sequence": lambda n: f"{IPv4Address(_FIRST4 + n)}/32",
    "10.x.y.2": lambda n: f"{IPv4Address(_FIRST4 + (n << 8) + 2)}/32",
    "10.x.y.0/24": lambda n: f"{IPv4Address(_FIRST4 + (n << 8))}/24",
    "2001:db8:a::x, in sequence": lambda n: f"{IPv6Address(_FIRST6 + n)}/128",
    "2001:db8:a:x::/64": lambda n: f"{IPv6Address(_FIRST6 + (n << 64))}/64",
    "2001:db8:x:y00::/56": lambda n: f"{IPv6Address(_FIRST6 + (n << 72))}/56",
}
GRANTS: Final = 1000
# What `benchmarks.comparison` calls them.
KINDS: Final = {
    "iptables": "iptables-nft", "iptables-legacy": "iptables-legacy", "nftables": "nftables",
}
_SECONDS: Final = 0.5


class _Host:
    """A host with a sink for floods, and a client that owns all addresses."""

    def __init__(self, lab: NetLab, stack: ExitStack) -> None:
        self._lab = lab
        guarded = lab.host.popen(
            [sys.executable, "-m", "benchmarks.client.guarded"], cwd=REPOSITORY,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        stack.callback(guarded.communicate)
        self._sink = guarded.stdout.readline().split()[1]
        client = lab.client()
        # Neighbours are asked for from here, since no device has the senders' addresses.
        client.ip("address add fe80::7/64 dev eth0 nodad")
        for net, way in ((_NET4, client.address4), (_NET6, client.address6)):
            client.ip(f"route add local {net} dev lo")
            lab.host.ip(f"route add {net} via {way}")

    @contextmanager
    def guarded(self, kind: str, shape: str, grants: int) -> Iterator[None]:
        """Rules with so many grants are in force."""
        holding = self._lab.host.popen(
            [sys.executable, "-m", "benchmarks.points.spread", kind, shape, str(grants)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        try:
            if holding.stdout.readline() != "ready\n":
                raise RuntimeError(f"{kind}: the grants were not made")
            yield
        finally:
            holding.communicate()

    def add_plain_rules(self) -> None:
        """What any stateful firewall needs at least to let all guests in, and to drop others."""
        for tool, net in (("iptables", _NET4), ("ip6tables", _NET6)):
            for words in (
                ("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"),
                ("-A", "INPUT", "-s", net, "-j", "ACCEPT"),
                # IPv6 finds its neighbours by ICMP.
                ("-A", "INPUT", "-p", "icmp" if net is _NET4 else "ipv6-icmp", "-j", "ACCEPT"),
                ("-P", "INPUT", "DROP"),
            ):
                self._lab.host.run([f"/usr/sbin/{tool}-nft", *words], check=True)

    def packets(self, source: str) -> float:
        """Packets per second that pass the rules."""
        version = 6 if ":" in source else 4
        host = self._lab.host
        sink = str(host.address6 if version == 6 else host.address4)
        before = delivered(host.pid, version)
        sent = self._lab.client().run(
            [sys.executable, "-m", "benchmarks.client.flood", source, sink, self._sink,
             str(_SECONDS)],
            cwd=REPOSITORY, check=True,
        )
        return (delivered(host.pid, version) - before) / float(sent.stdout)


def measure(plan: Plan) -> dict[str, Any]:
    """What is left of the packets per second without rules: of each backend, by shape.

    Of the only guest (`one`), of the newest of `GRANTS`, and with `plain` rules of an operator's
    own instead of ours, of which a packet meets two.
    """
    return {"grants": GRANTS, "variants": {
        backend.name: {
            shape: _ratios(KINDS[backend.name], shape, plan.pick(3, 8)) for shape in SHAPES
        }
        for backend in plan.backends
    }}


def _ratios(kind: str, shape: str, rounds: int) -> dict[str, float]:
    packets: dict[str, list[float]] = {"none": [], "plain": [], "one": [], "newest": []}
    with ExitStack() as stack:
        hosts = {name: _Host(stack.enter_context(NetLab()), stack) for name in packets}
        hosts["plain"].add_plain_rules()
        stack.enter_context(hosts["one"].guarded(kind, shape, 1))
        stack.enter_context(hosts["newest"].guarded(kind, shape, GRANTS))
        for _, name in turns(rounds, [*packets]):
            newest = ip_network(SHAPES[shape](0 if name == "one" else GRANTS - 1))
            packets[name].append(hosts[name].packets(str(newest[-1])))
    none = median(packets["none"])
    return {name: median(packets[name]) / none for name in ("plain", "one", "newest")}


async def _hold(reactor: Any, kind: str, shape: str, grants: int) -> None:
    networks = [ip_network(SHAPES[shape](number)) for number in range(grants)]
    firewall = make_firewall(kind, reactor, device="eth0", prefix=networks[0].prefixlen)
    await firewall.open((PortRange("tcp", 8880, 8880),))
    end = reactor.seconds() + 3600
    # The newest comes last.
    for part in (networks[:-1], networks[-1:]):
        await gatherResults([firewall.allow(GrantId(each), end) for each in part])
    print("ready", flush=True)
    closed: Deferred[None] = Deferred()
    StandardIO(_UntilClosed(closed))
    await closed
    await firewall.close()


class _UntilClosed(Protocol):
    def __init__(self, closed: Deferred[None]) -> None:
        self._closed = closed

    def connectionLost(self, *_: object) -> None:
        self._closed.callback(None)


if __name__ == "__main__":
    kind, shape, number = sys.argv[1:]
    react(lambda reactor: ensureDeferred(_hold(reactor, kind, shape, int(number))), [])
