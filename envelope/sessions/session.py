"""One session: its states as one declared machine.

Its grant is being made; it is open; its grant is being revoked; it is over. A session holds a slot
from the first state to the last, so no slot is lost or counted twice, and its connection is closed
only once its grant is revoked. What each transition does is up to its owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, succeed

from envelope.addresses import Address, AddressFamily, Network
from envelope.firewall import GrantId, Traffic
from envelope.protocol import End
from envelope.runtime.timers import Timer
from envelope.sessions import gate
from envelope.sessions.admission import Admission
from envelope.sessions.slots import Visitor
from envelope.sessions.view import SessionView


class SessionMachine(Protocol):
    """The events of a session; one that comes too late changes nothing."""

    def granted(self) -> None:
        """The grant is in force."""

    def refused(self) -> None:
        """The firewall could not make the grant."""

    def end(self, why: End) -> None:
        """The session has to end."""

    def revoked(self) -> None:
        """The session's grant is revoked, or is left to other sessions of its network."""


class SessionOwner(Protocol):
    """Does what the transitions of a session need."""

    def opened(self, data: SessionData, machine: SessionMachine) -> None:
        """The session is open: start its timer."""

    def given_up(self, data: SessionData) -> None:
        """The session ends before it opened: answer its client, which waits for its grant."""

    def revoke(self, data: SessionData) -> Deferred[None]:
        """Remove the session from its network's grant, and revoke the grant with the last one."""

    def ended(self, data: SessionData) -> None:
        """The grant is revoked: close the connection and free the slot."""

    def failed(self, data: SessionData) -> None:
        """The grant could not be made: free the slot."""


@dataclass(eq=False, slots=True)
class SessionData:
    """What is known of one session; times are reactor seconds.

    `since` is when it opened, in seconds since the epoch by the wall clock of that moment.
    `admitted` and `closed` are fired once and then None: the answer to `IGate.admit`, and that to
    `ISession.client_closed`. `end` is why the session ended, or is about to. `traffic` is what its
    grant had let in by its end; with `shared`, other sessions had that grant too.
    """

    owner: SessionOwner
    session_id: str
    address: Address | None
    network: Network | None
    admission: Admission
    carrier: gate.ICarrier
    deadline: Timer
    asked_at: float
    opened_at: float | None = None
    since: float = 0.0
    end: End | None = None
    over: bool = False
    admitted: Deferred[gate.ISession] | None = None
    closed: Deferred[None] | None = None
    traffic: Traffic | None = None
    shared: bool = False

    @property
    def grant(self) -> GrantId | None:
        """The grant that lets its network in; None without an address."""
        return None if self.network is None else GrantId(self.network, self.admission.service)

    @property
    def family(self) -> AddressFamily:
        """The client's address family; IPv4 when its address is unknown."""
        return AddressFamily.of_version(4 if self.address is None else self.address.version)

    @property
    def visitor(self) -> Visitor | None:
        """Who its token stands for; None without a `jti`."""
        bearer = self.admission.bearer
        return None if bearer is None else bearer.visitor

    @property
    def remaining(self) -> float:
        """The seconds from its opening to its deadline."""
        waited = 0.0 if self.opened_at is None else self.opened_at - self.asked_at
        return max(0.0, self.admission.duration - waited)

    def view(self, traffic: Traffic | None) -> SessionView:
        """The session as an operator sees it; `traffic` is what its grant has let in."""
        bearer = self.admission.bearer
        return SessionView(
            id=self.session_id,
            address=self.address,
            network=self.network,
            subject=None if bearer is None else bearer.subject,
            since=self.since,
            until=self.since + self.remaining,
            packets=None if traffic is None else traffic.packets,
            bytes=None if traffic is None else traffic.bytes,
            claims={} if bearer is None else bearer.claims,
        )

    def take_admitted(self) -> Deferred[gate.ISession]:
        """The answer to `admit`, for the one time that it is fired; not referred to after that."""
        admitted, self.admitted = self.admitted, None
        assert admitted is not None, "admit is answered once"
        return admitted


_builder = TypeMachineBuilder(SessionMachine, SessionData)
_granting = _builder.state("granting")
_open = _builder.state("open")
_revoking = _builder.state("revoking")
_over = _builder.state("over")


@_granting.upon(SessionMachine.granted).to(_open)
def _open_session(machine: SessionMachine, data: SessionData) -> None:
    data.owner.opened(data, machine)


@_granting.upon(SessionMachine.refused).to(_over)
def _fail(_machine: SessionMachine, data: SessionData) -> None:
    data.owner.failed(data)


@_granting.upon(SessionMachine.end).to(_revoking)
def _end_before_it_opened(machine: SessionMachine, data: SessionData, why: End) -> None:
    data.end = why
    data.owner.given_up(data)
    data.owner.revoke(data).addCallback(lambda _: machine.revoked())


@_open.upon(SessionMachine.end).to(_revoking)
def _end(machine: SessionMachine, data: SessionData, why: End) -> None:
    data.end = why
    data.deadline.stop()
    data.owner.revoke(data).addCallback(lambda _: machine.revoked())


@_revoking.upon(SessionMachine.revoked).to(_over)
def _finish(_machine: SessionMachine, data: SessionData) -> None:
    data.owner.ended(data)


_revoking.upon(SessionMachine.end).loop().returns(None)
_revoking.upon(SessionMachine.granted).loop().returns(None)
_revoking.upon(SessionMachine.refused).loop().returns(None)
_over.upon(SessionMachine.end).loop().returns(None)
_over.upon(SessionMachine.granted).loop().returns(None)
_over.upon(SessionMachine.refused).loop().returns(None)

make_machine = _builder.build()


class Session:
    """One session as its connection sees it; see `gate.ISession`."""

    __slots__ = ("data", "machine")

    def __init__(self, data: SessionData, machine: SessionMachine) -> None:
        self.data = data
        self.machine = machine

    def client_left(self) -> None:
        """See `gate.ISession`."""
        self.machine.end(End.LOST)

    def client_closed(self) -> Deferred[None]:
        """See `gate.ISession`."""
        if self.data.over:
            return succeed(None)
        closed: Deferred[None] = Deferred()
        self.data.closed = closed
        self.machine.end(End.CLIENT)
        return closed

    def data_received(self) -> None:
        """See `gate.ISession`."""
        self.machine.end(End.DATA)
