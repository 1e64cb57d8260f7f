"""Makes connection tracking remember that a client began a UDP flow, however long it is silent.

A UDP server's socket serves all clients, so it cannot be destroyed when a grant ends. But tracking
forgets a flow after 30 s of silence, or 120 s once it was answered (nf_conntrack_udp_timeout and
nf_conntrack_udp_timeout_stream), and takes the server's next packet for the beginning of a flow of
this host's. So the entries of clients' flows are pinned: each goes on to say that its client began
the flow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.addresses import Network, Opening
from envelope.firewall.cooperate import in_turns
from envelope.firewall.flows.connections import (
    FIXED_FOR,
    READ_AT_ONCE,
    Clients,
    Ended,
    SocketTable,
    Tracking,
    UdpFlow,
)
from envelope.firewall.flows.judge import Judge
from envelope.runtime.timers import Timer

# Seconds between two lists of flows: one takes 5 ms, mostly to walk the kernel's table. An end that
# comes sooner is answered at once, since tracking forgets nothing within 30 s.
APART: Final = 1.0
# Flows pinned at a time; each takes some 300 bytes of the kernel's memory.
MOST_FIXED: Final = 8192

_log = Logger(namespace="envelope.firewall")


class UdpFlows:
    """Pins clients' UDP flows through `devices`, which may change."""

    def __init__(
        self, reactor: IReactorTime, sockets: SocketTable, tracking: Tracking,
        devices: Collection[str], always_open: tuple[Opening, ...],
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._tracking = tracking
        self._devices = devices
        self._open = always_open
        self._ended: dict[Network, Ended] = {}
        self._timer = Timer(reactor)
        # Whether callers wait for the next list, and their answers.
        self._prompt = False
        self._waiting: list[Deferred[None]] = []
        self._not_before = 0.0
        self._failed = False
        # The pinned flows, and until when (reactor seconds).
        self._fixed: dict[UdpFlow, float] = {}

    def end(self, ended: Ended) -> Deferred[None]:
        """Pin the flows of a grant that has ended; fires when the caller may go on."""
        self._ended[ended.network] = ended
        if not self._timer.running:
            wait = self._not_before - self._reactor.seconds()
            # Ends of the same turn share a list.
            self._timer.start(max(0.0, wait), self._look)
            self._prompt = wait <= 0
        done: Deferred[None] = Deferred()
        if self._prompt:
            self._waiting.append(done)
        else:
            done.callback(None)
        return done

    def stop(self) -> None:
        """Look no more."""
        self._timer.stop()
        self._answer()

    def _look(self) -> None:
        self._not_before = self._reactor.seconds() + APART
        ended, self._ended = self._ended, {}
        Deferred.fromCoroutine(self.hold(Clients(ended.values()))).addErrback(
            lambda failure: _log.failure("looking at UDP flows broke", failure=failure)
        ).addCallback(lambda _: self._answer())

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(None)

    async def hold_all(self, networks: Iterable[Network]) -> None:
        """Pin the flows that all clients of these networks have now."""
        clients = Clients(())
        await in_turns(self._reactor, networks, lambda part: clients.add(
            Ended(each, self._open) for each in part
        ))
        await self.hold(clients)

    async def hold(self, clients: Clients) -> None:
        """Pin the flows that these clients have now."""
        try:
            served = self._sockets.served_ports("udp")
            if all(any(each.covers("udp", port) for each in self._open) for port in served):
                return
            judge = Judge(self._sockets, self._devices, "udp")
            for version in clients.versions:
                begun = await in_turns(
                    self._reactor, self._tracking.udp_flows(version),
                    lambda part: [
                        found for each in part for found in begun_by_client(each, clients, judge)
                    ],
                    READ_AT_ONCE,
                )
                self._fix(begun)
        except OSError as error:
            # Without devices all is closed.
            if self._devices and not self._failed:
                _log.warn("a UDP server that sends to a client again after a long silence opens "
                          "that flow: tracking cannot be told of it ({why})", why=error.strerror)
            self._failed = True

    def _fix(self, begun: list[tuple[UdpFlow, bool]]) -> None:
        now = self._reactor.seconds()
        self._fixed = {flow: until for flow, until in self._fixed.items() if until > now}
        for flow, turned in begun:
            if flow not in self._fixed and len(self._fixed) >= MOST_FIXED:
                _log.warn("clients had more than {number} UDP flows within an hour: a server that "
                          "sends again after a long silence opens those beyond", number=MOST_FIXED)
                return
            self._tracking.fix(flow, turned)
            self._fixed[flow] = now + FIXED_FOR


def begun_by_client(
    flow: UdpFlow, clients: Clients, judge: Judge
) -> list[tuple[UdpFlow, bool]]:
    """A flow as its client began it, and whether tracking sees it the other way round.

    Nothing if no client began it. If this host sent first, one did all the same where the port is
    served and is not one that the kernel chose: the server sent after a long silence.
    """
    for each, turned in ((flow, False), (flow.turned, True)):
        port = each.target_port
        if (
            port in judge.served and not (turned and port in judge.ephemeral)
            and clients.lose(each.source, "udp", port)
            and judge.is_guarded(each.target, each.source)
        ):
            return [(each, turned)]
    return []
