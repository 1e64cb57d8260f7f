"""A service's lives over one world: its clients, what it should have let in, and the comparison.
"""

from __future__ import annotations

import time
from ipaddress import ip_address, ip_network
from typing import Any

from pytest_twisted import blockon
from twisted.internet import reactor
from twisted.internet.task import deferLater

from envelope.admission import Admission
from envelope.config import Config
from envelope.firewall import FirewallError
from envelope.metrics import Metrics
from envelope.sessions import End, Sessions
from tests.kernel.mortal import MortalReactor
from tests.kernel.subject import SERVICE
from tests.kernel.udp import Listener

CLIENTS = ["203.0.113.2", "203.0.113.3", "203.0.113.66", "2001:db8::2", "2001:db8::66"]
NOBODY: dict[int, dict[str, float]] = {4: {}, 6: {}}
# Longer than the service's longest pause, and than all that it may have to wait for.
PATIENCE = 60.0


class Client:
    """One client, from its request to its end; also the connection that the session closes."""

    def __init__(self, address: str, lasts: float) -> None:
        self.address = address
        self.network = str(ip_network(address))
        self.lasts = lasts
        self.deadline = 0.0
        self.state = "asking"

    def ask(self, sessions: Sessions, now: float) -> None:
        self.deadline = now + self.lasts
        admission = Admission(self.lasts, self.deadline, "")
        self.answer = sessions.admit(ip_address(self.address), admission, self)
        self.answer.addCallbacks(self._admitted, self._refused)

    def _admitted(self, session: object) -> None:
        self.session = session
        self.state = "in"

    def _refused(self, failure: object) -> None:
        failure.trap(FirewallError)
        self.state = "refused"

    def leave(self, how: str) -> None:
        if self.state == "asking":
            self.state = "gone"
            self.answer.addErrback(lambda _: None)
            self.answer.cancel()
        elif self.state == "in":
            self.state = "leaving"
            {"close": self.session.client_closed, "data": self.session.data_received,
             "vanish": self.session.client_left}[how]()

    def close(self, code: int, reason: str) -> None:
        self.state = "out"

    def abort(self) -> None:
        self.state = "out"


class Life:
    """What happens to a service, killed and started again, in one world.

    `orders` are what its tool has been told; while there are none, every step is waited for.
    """

    def __init__(self, world: Any, listener: Listener) -> None:
        self.world, self.listener = world, listener
        self.clients: list[Client] = []
        self.up = self.left_over = False
        self.baseline = "service"
        self.orders = ""
        # Whether others have changed what is ours since the tool stopped working.
        self.disturbed = False
        self.clock_set_by = 0

    # -- the service -----------------------------------------------------------------------

    def wall(self) -> float:
        """The time of day, as the service sees it: as hasty as its timers, and somebody sets it."""
        return self.reactor.seconds() + self.clock_set_by

    def start(self, baseline: str) -> None:
        """Start a service; it may fail only if the tool does."""
        self.reactor = MortalReactor(self.world.haste)
        metrics = Metrics()
        self.firewall = self.world.firewall(self.reactor, baseline, metrics, self.wall)
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
            self.reactor, Config(), self.firewall, lambda *_: None, metrics, self.wall)
        self.world.keep_refusing(baseline)

    def kill(self, children_too: bool) -> None:
        """As `kill -9` does: nothing of what was under way goes on, and the rules stay."""
        blockon(self.reactor.die(children_too))
        self.firewall._release()
        self.up = False
        if not self.orders:
            assert not self.differences()
            self._send_packets(exactly=True)
        elif self.disturbed:
            self.world.forgotten()
        self.clients = []
        self.disturbed = False

    def stop(self) -> None:
        """A clean stop: all that is left is what others have."""
        self.sessions.end_all(End.SHUTDOWN)
        blockon(self.sessions.when_empty())
        blockon(self.firewall.close())
        self.up = self.left_over = False
        self.clients = []
        self.world.cleared()

    def order(self, orders: str) -> None:
        """Tell the tool what to do from now on."""
        self.orders = orders
        self.world.tools.order(*orders.split())

    def wipe(self) -> None:
        """Begin the next example with nothing there, also after one that failed."""
        blockon(self.reactor.die())
        self.firewall._release()
        self.world.wipe()

    # -- its clients -----------------------------------------------------------------------

    def come(self, address: str, lasts: float) -> Client:
        """One more asks to come in."""
        client = Client(address, lasts)
        self.clients.append(client)
        client.ask(self.sessions, self.reactor.seconds())
        return client

    def send_away(self, client: Client) -> None:
        """An operator ends its session."""
        for session_id, (stay, _) in list(self.sessions._lives.items()):
            if stay.carrier is client and client.state == "in":
                client.state = "leaving"
                self.sessions.end_session(session_id, End.REVOKED)

    def wait(self, seconds: float) -> None:
        """Let things happen."""
        blockon(deferLater(reactor, seconds))

    # -- the comparison --------------------------------------------------------------------

    def step(self) -> None:
        """Something was done: wait for what comes of it, if it can be waited for, and compare."""
        if self.up and not self.orders:
            self._settle()
            self.disturbed = False
        elif not self.up and not self.left_over:
            assert not self.world.differences(None, NOBODY, 0.0)

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
        self.clients = self._inside()
        self._send_packets(exactly=True)

    def _unsettled(self) -> list[str]:
        if problems := self.firewall.problems():
            return list(problems)
        if any(client.state == "asking" for client in self.clients):
            return ["somebody waits for an answer"]
        if len(self.sessions) != len(self._inside()):
            return [f"{len(self.sessions)} sessions for {len(self._inside())} clients"]
        return self.differences()

    def _send_packets(self, exactly: bool) -> None:
        inside = {client.address: client for client in self._inside()}
        for source in CLIENTS:
            if source in inside and inside[source].lasts < 3600 and self.clock_set_by:
                # The machine's own clock was not set, and the kernel has ended it.
                continue
            heard = self.listener.hears(source)
            assert heard or source not in inside, f"{source} has a session and is refused"
            if exactly:
                assert heard == (source in inside), f"{source} has no session and is let in"
