"""One service after another on one kernel: clients, what must be open, and the comparison."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from itertools import product
from typing import Any

from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.task import deferLater

from envelope.config import Config
from envelope.firewall import FirewallError, GrantId
from envelope.firewall.metrics import FirewallMetrics
from envelope.metrics import new_registry
from envelope.protocol import End
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from tests.kernel.checkedfirewall import CheckedFirewall
from tests.kernel.firewallundertest import LOOSE, SERVICE, is_loose
from tests.kernel.iptablesmodel import BACKSTOP
from tests.kernel.killablereactor import KillableReactor
from tests.kernel.modelclient import Client, grants_of, opened_by
from tests.kernel.modelclock import ModelClock
from tests.kernel.modelcounts import counted
from tests.kernel.modelservices import ONE, Grants, Guarded
from tests.kernel.udpprobe import Listener

CLIENTS = ["203.0.113.2", "203.0.113.3", "203.0.113.66", "2001:db8::2", "2001:db8::66"]
NO_GRANTS: dict[int, Grants] = {4: {}, 6: {}}
# Seconds until a condition counts as missed: longer than the service's longest retry pause.
PATIENCE = float(os.environ.get("MODEL_PATIENCE", "60"))
# Seconds: how late a session may be ended, and how early this test may see its end.
LATE, EARLY = 1.5, 0.1


class ServiceLife:
    """A service that is started, killed and stopped, again and again, in one `world`.

    `world` is the kernel with its faulty tool (`IptablesWorld` or `NftWorld`), `listener` receives
    the clients' packets. `orders` is what the tool was told; while it is empty, every step is
    waited for. `wipe` cleans up.
    """

    def __init__(self, world: Any, listener: Listener) -> None:
        self.world, self.listener = world, listener
        self.clients: list[Client] = []
        self.up = self.left_over = False
        self.baseline, self.guarded = "service", ONE
        self.orders = ""
        # Whether others changed rules since the last full comparison.
        self.disturbed = False
        self.clock = ModelClock()
        self.drift = 0.0

    # -- the service -----------------------------------------------------------------------

    def wall(self) -> float:
        """The service's wall clock, in seconds: as fast as its timers, plus the clock step."""
        return self.reactor.seconds() + self.clock.ahead

    def start(self, baseline: str, guarded: Guarded = ONE) -> None:
        """Start a service; a failed start is an error unless the tool was told to fail."""
        self.reactor = KillableReactor(self.world.speed)
        self.registry, self.drift = new_registry(), 0.0
        self.kernel_firewall = self.world.firewall(
            self.reactor, baseline, guarded, FirewallMetrics(self.registry), self.wall)
        self.firewall = CheckedFirewall(self.kernel_firewall, self._passes)
        try:
            blockon(self.firewall.open(SERVICE))
        except FirewallError:
            assert self.orders, "a start failed although the tool works"
            blockon(self.reactor.kill())
            return
        if self.left_over:
            # The start cleared the chains that were left, with the rules that others had put there.
            self.world.cleared()
        self.baseline, self.guarded = baseline, guarded
        self.up = self.left_over = True
        self.sessions = Sessions(
            self.reactor, Config(subject=guarded.subjects), self.firewall, lambda *_: None,
            SessionMetrics(self.registry), self.wall)
        self.world.keep_refusing(baseline)
        if not self.orders:
            # The start is one transaction and leaves nothing to repair.
            assert not self.differences()
        assert is_loose() is (baseline != "service")

    def kill(self, children_too: bool) -> None:
        """Kill the service as `kill -9` does: nothing under way goes on, and the rules stay."""
        blockon(self.reactor.kill(children_too))
        self.kernel_firewall._release()
        self.up = False
        if not self.orders:
            assert not self.differences()
            self._send_packets(exactly=True)
        elif self.disturbed:
            self.world.forgotten()
            if not self.world.remembers_loose():
                # No successor can know it: an operator restores the setting.
                LOOSE.write_text("1")
        self.clients = []
        self.disturbed = False
        self.clock.compared()

    def stop(self) -> None:
        """Stop the service cleanly: only the rules of others are left."""
        self.sessions.end_all(End.SHUTDOWN)
        blockon(self.sessions.when_empty())
        blockon(self.firewall.close())
        assert is_loose()
        assert not any(client.state in ("asking", "in") for client in self.clients)
        self.up = self.left_over = False
        self.clients = []
        self.world.cleared()

    def order(self, orders: str) -> None:
        """Tell the tool what to do from now on (words of `ORDERS`, "" for work as usual)."""
        self.orders = orders
        self.world.tools.order(*orders.split())
        # A change that the tool dropped in silence is found as a change by others is.
        self.disturbed |= bool(self.world.silent_failures.intersection(orders.split()))

    def wipe(self) -> None:
        """Kill the service and remove all rules, whatever state a failed example left."""
        blockon(self.reactor.kill())
        self.kernel_firewall._release()
        self.world.wipe()
        LOOSE.write_text("1")

    # -- its clients -----------------------------------------------------------------------

    def connect(self, address: str, lasts: float, service: int = 0) -> Client:
        """A client asks for a session of `lasts` seconds; returns it before the answer."""
        client = Client(address, lasts, service)
        self.clients.append(client)
        client.ask(self.sessions, self.reactor.seconds())
        return client

    def wait(self, seconds: float) -> None:
        """Run the reactor for so many real seconds."""
        blockon(deferLater(reactor, seconds))

    def until(self, condition: Callable[[], object]) -> None:
        """Run the reactor until `condition` holds, and send packets meanwhile."""
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit, "the condition was not met in time"
            self.wait(0.01)
            self.look()

    # -- the comparison --------------------------------------------------------------------

    def step(self) -> None:
        """Wait for the effects of the last operation if the tool works, and compare."""
        if self.up and not self.orders:
            self._settle()
            self.disturbed = False
        elif self.up:
            self.look()
        elif not self.left_over:
            assert not self.world.differences(None, ONE, NO_GRANTS, 0.0)

    def look(self) -> None:
        """Check what must hold at any moment: sessions are let in, and strangers are not."""
        assert not self.firewall.false_answers, self.firewall.false_answers
        if not self.disturbed:
            self._send_packets(exactly=False)

    def differences(self) -> list[str]:
        """The differences between the kernel's rules and those that the sessions need."""
        wanted = grants_of(self._inside(), self.clock.ahead)
        return self.world.differences(self.baseline, self.guarded, wanted, self.wall())

    def _inside(self) -> list[Client]:
        return [client for client in self.clients if client.state == "in"]

    def _settle(self) -> None:
        """Wait until the service has nothing left to do, then compare rules and packets."""
        self._wait_until_settled()
        if self.disturbed:
            # Some changes by others are no difference here, such as the chain of an end that no
            # grant needs. The service repairs them too, in this step and not in the next.
            self._wait_for_looks()
            self._wait_until_settled()
        self.clock.compared()
        self.clients = self._inside()
        self._send_packets(exactly=True)
        # Without a change by others nothing may count as repaired.
        drift, self.drift = self.drift, counted(self.registry, "envelope_firewall_drift_total")
        assert self.disturbed or self.drift == drift, "repaired rules that nobody has changed"

    def _wait_until_settled(self) -> None:
        limit = time.monotonic() + PATIENCE
        while (different := self._unsettled()):
            assert time.monotonic() < limit, different
            self.wait(0.02)
            self.look()

    def _wait_for_looks(self) -> None:
        """Wait until the service has looked at each table, and mended what it has found."""
        # Once a second look begins, the first one's mending is over.
        for _, reconciler in 2 * self.kernel_firewall._tables:
            reconciler.check()
            self.until(lambda each=reconciler: not each._must_look)

    def _unsettled(self) -> list[str]:
        if problems := self.firewall.problems():
            return list(problems)
        if any(client.state == "asking" for client in self.clients):
            return ["a client waits for an answer"]
        if late := [client.address for client in self._inside()
                    if client.deadline + LATE < self.reactor.seconds()]:
            return [f"{late} are inside beyond their deadlines"]
        if len(self.sessions) != len(self._inside()):
            return [f"{len(self.sessions)} sessions for {len(self._inside())} clients"]
        return self.differences()

    def _send_packets(self, exactly: bool) -> None:
        """Send packets of every client to every port.

        `exactly`: a port that no session of its address opens must refuse them.
        """
        known = opened_by(self.clients, self.guarded)
        inside = opened_by(self._inside(), self.guarded)
        for place in product(CLIENTS, self.guarded.ports):
            heard = self.listener.hears(*place)
            if place not in inside:
                assert not heard or (place in known and not exactly), f"{place} is let in"
            elif not heard and inside[place] > self.reactor.seconds() + self.clock.behind + EARLY:
                raise AssertionError(f"{place} has a session and is refused")

    def _passes(self, grant: GrantId, others: Collection[GrantId], until: float) -> set[bool]:
        """Whether packets to the ports of a grant get through; see `CheckedFirewall`."""
        source = str(grant.network.network_address)
        if source not in CLIENTS or self.disturbed or self.clock.moved:
            return set()
        if until + self.clock.ahead + BACKSTOP < max(self.wall(), time.time()):
            # The kernel has ended the grant, or the service's fast clock says so.
            return set()
        opens = self.guarded.opens
        ports = opens[grant.service].difference(*(opens[each.service] for each in others))
        return {self.listener.hears(source, port) for port in ports}
