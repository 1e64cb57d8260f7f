"""A service's lives over one world: its clients, what it should have let in, and the comparison.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.task import deferLater

from envelope.addresses import Network
from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.firewall.metrics import FirewallMetrics
from envelope.metrics import new_registry
from envelope.protocol import End
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from tests.kernel.checkedfirewall import CheckedFirewall
from tests.kernel.firewallundertest import SERVICE
from tests.kernel.iptablesmodel import BACKSTOP
from tests.kernel.killablereactor import KillableReactor
from tests.kernel.modelclient import Client
from tests.kernel.udpprobe import Listener

CLIENTS = ["203.0.113.2", "203.0.113.3", "203.0.113.66", "2001:db8::2", "2001:db8::66"]
NOBODY: dict[int, dict[str, float]] = {4: {}, 6: {}}
# Longer than the service's longest pause, and than all that it may have to wait for.
PATIENCE = float(os.environ.get("MODEL_PATIENCE", "60"))
# By how much (seconds) a session may be ended late, and how early its end may be noticed here.
LATE, EARLY = 1.5, 0.1


class ServiceLife:
    """What happens to a service, killed and started again, in one world.

    `orders` are what its tool has been told; while there are none, every step is waited for.
    """

    def __init__(self, world: Any, listener: Listener) -> None:
        self.world, self.listener = world, listener
        self.clients: list[Client] = []
        self.up = self.left_over = False
        self.baseline = "service"
        self.orders = ""
        # Whether rules, not by us, or the time of day have changed since all was settled.
        self.disturbed = self.clock_moved = False
        self.clock_set_by = 0
        self.drift = 0.0

    # -- the service -----------------------------------------------------------------------

    def wall(self) -> float:
        """The time of day, as the service sees it: as hasty as its timers, and somebody sets it."""
        return self.reactor.seconds() + self.clock_set_by

    def start(self, baseline: str) -> None:
        """Start a service; it may fail only if the tool does."""
        self.reactor = KillableReactor(self.world.haste)
        self.registry, self.drift = new_registry(), 0.0
        self.kernel_firewall = self.world.firewall(
            self.reactor, baseline, FirewallMetrics(self.registry), self.wall)
        self.firewall = CheckedFirewall(self.kernel_firewall, self._passes)
        try:
            blockon(self.firewall.open(SERVICE))
        except FirewallError:
            assert self.orders, "a start failed although the tool works"
            blockon(self.reactor.die())
            return
        if self.left_over:
            # What others had put into our chains was cleared along with what was left of ours.
            self.world.cleared()
        self.baseline, self.up, self.left_over = baseline, True, True
        self.sessions = Sessions(
            self.reactor, Config(), self.firewall, lambda *_: None, SessionMetrics(self.registry),
            self.wall)
        self.world.keep_refusing(baseline)
        if not self.orders:
            # In one transaction: there is nothing left to be mended.
            assert not self.differences()

    def kill(self, children_too: bool) -> None:
        """As `kill -9` does: nothing of what was under way goes on, and the rules stay."""
        blockon(self.reactor.die(children_too))
        self.kernel_firewall._release()
        self.up = False
        if not self.orders:
            assert not self.differences()
            self._send_packets(exactly=True)
        elif self.disturbed:
            self.world.forgotten()
        self.clients = []
        self.disturbed = self.clock_moved = False

    def stop(self) -> None:
        """A clean stop: all that is left is what others have."""
        self.sessions.end_all(End.SHUTDOWN)
        blockon(self.sessions.when_empty())
        blockon(self.firewall.close())
        assert not any(client.state in ("asking", "in") for client in self.clients)
        self.up = self.left_over = False
        self.clients = []
        self.world.cleared()

    def order(self, orders: str) -> None:
        """Tell the tool what to do from now on."""
        self.orders = orders
        self.world.tools.order(*orders.split())
        # What the tool lied about is found out as what others have changed is.
        self.disturbed |= bool(self.world.lies.intersection(orders.split()))

    def wipe(self) -> None:
        """Begin the next example with nothing there, also after one that failed."""
        blockon(self.reactor.die())
        self.kernel_firewall._release()
        self.world.wipe()

    # -- its clients -----------------------------------------------------------------------

    def come(self, address: str, lasts: float) -> Client:
        """One more asks to come in."""
        client = Client(address, lasts)
        self.clients.append(client)
        client.ask(self.sessions, self.reactor.seconds())
        return client

    def wait(self, seconds: float) -> None:
        """Let things happen."""
        blockon(deferLater(reactor, seconds))

    def until(self, condition: Callable[[], object]) -> None:
        """Let things happen until `condition` holds; packets are sent all the while."""
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit, "it never came true"
            self.wait(0.01)
            self.look()

    # -- the comparison --------------------------------------------------------------------

    def step(self) -> None:
        """Something was done: wait for what comes of it, if it can be waited for, and compare."""
        if self.up and not self.orders:
            self._settle()
            self.disturbed = self.clock_moved = False
        elif self.up:
            self.look()
        elif not self.left_over:
            assert not self.world.differences(None, NOBODY, 0.0)

    def look(self) -> None:
        """What holds at every moment: those inside are let in, and nobody who never asked."""
        assert not self.firewall.lies, self.firewall.lies
        if not self.disturbed:
            self._send_packets(exactly=False)

    def differences(self) -> list[str]:
        """What the kernel holds against who should be let in, in the time of day as it is now."""
        wanted: dict[int, dict[str, float]] = {4: {}, 6: {}}
        for client in self._inside():
            networks = wanted[6 if ":" in client.network else 4]
            deadline = client.deadline + self.clock_set_by
            networks[client.network] = max(deadline, networks.get(client.network, 0.0))
        return self.world.differences(self.baseline, wanted, self.wall())

    def _inside(self) -> list[Client]:
        return [client for client in self.clients if client.state == "in"]

    def _settle(self) -> None:
        """Wait until nothing is left to do, then compare rules and packets with the model."""
        limit = time.monotonic() + PATIENCE
        while (different := self._unsettled()):
            assert time.monotonic() < limit, different
            self.wait(0.02)
            self.look()
        self.clients = self._inside()
        self._send_packets(exactly=True)
        # What nobody has changed needs no mending.
        drift, self.drift = self.drift, self._counted("envelope_firewall_drift_total")
        assert self.disturbed or self.drift == drift, "mended what nobody has changed"

    def failures(self) -> float:
        """How many transactions the tool has failed, also those that were soon made up for."""
        name = "envelope_firewall_transactions_total"
        return self._counted(name) - self._counted(name, outcome="ok")

    def _counted(self, name: str, **labels: str) -> float:
        return sum(
            sample.value for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _unsettled(self) -> list[str]:
        if problems := self.firewall.problems():
            return list(problems)
        if any(client.state == "asking" for client in self.clients):
            return ["somebody waits for an answer"]
        if late := [client.address for client in self._inside()
                    if client.deadline + LATE < self.reactor.seconds()]:
            return [f"{late} are inside beyond their deadlines"]
        if len(self.sessions) != len(self._inside()):
            return [f"{len(self.sessions)} sessions for {len(self._inside())} clients"]
        return self.differences()

    def _send_packets(self, exactly: bool) -> None:
        """Let everybody send a packet; `exactly`: who is not inside is to be refused, too."""
        known = {client.address for client in self.clients}
        inside: dict[str, float] = {}
        for client in self._inside():
            inside[client.address] = max(client.deadline, inside.get(client.address, 0.0))
        for source in CLIENTS:
            heard = self.listener.hears(source)
            if source not in inside:
                assert not heard or (source in known and not exactly), f"{source} is let in"
            elif not heard and not self._may_have_ended(inside[source]):
                raise AssertionError(f"{source} has a session and is refused")

    def _may_have_ended(self, deadline: float) -> bool:
        # The machine's own clock was not set: what is short, the kernel may have ended.
        short = self.clock_set_by and deadline < self.reactor.seconds() + 3600
        return bool(short) or deadline < self.reactor.seconds() + EARLY

    def _passes(self, network: Network, until: float) -> bool | None:
        """Whether packets of a network get through, or None; see `CheckedFirewall`."""
        source = str(network.network_address)
        if source not in CLIENTS or self.disturbed or self.clock_moved:
            return None
        if until + self.clock_set_by + BACKSTOP < max(self.wall(), time.time()):
            # The kernel has ended it, or so it seems to a service that is in haste.
            return None
        return self.listener.hears(source)
