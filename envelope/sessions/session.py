"""One session: its states as one declared machine.

Its grant is being made, it is open, its grant is being taken away, it is over. It holds a slot
from the first of these to the last, so a slot is never lost and never counted twice, and it ends
its connection only once its grant is gone. What the transitions do is the owner's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall

from envelope.addresses import Address, AddressFamily, Network
from envelope.protocol import End
from envelope.sessions import gate
from envelope.sessions.admission import Admission


class Life(Protocol):
    """What can happen to a session."""

    def granted(self) -> None:
        """The rule is in force."""

    def refused(self) -> None:
        """The firewall could not make the grant."""

    def end(self, why: End) -> None:
        """Somebody or something ends the session."""

    def gone(self) -> None:
        """The kernel lets the network in no more on this session's account."""


class Owner(Protocol):
    """Does what a session's transitions ask for."""

    def opened(self, stay: Stay, life: Life) -> None:
        """The session is open: start its clock."""

    def revoke(self, stay: Stay) -> Deferred[None]:
        """Take the session out of its network's grant, and the grant away with its last."""

    def ended(self, stay: Stay) -> None:
        """The grant is gone: close the socket, free the slot."""

    def forget(self, stay: Stay) -> None:
        """The grant was never made: free the slot."""


@dataclass(eq=False, slots=True)
class Stay:
    """One session's particulars; `owner` does what its transitions ask for."""

    owner: Owner
    session_id: str
    address: Address | None
    network: Network | None
    admission: Admission
    carrier: gate.ICarrier
    asked_at: float
    since: float
    # Answers that somebody waits for: whether the client is let in, and that it is shut out again.
    admitted: Deferred[gate.ISession] | None = None
    left: Deferred[None] | None = None
    over: bool = False
    why: End | None = None
    opened_at: float | None = None
    timer: IDelayedCall | None = None

    @property
    def family(self) -> AddressFamily:
        """The client's address family, as the metrics name it."""
        return AddressFamily.of_version(4 if self.address is None else self.address.version)


_builder = TypeMachineBuilder(Life, Stay)
_granting = _builder.state("granting")
_open = _builder.state("open")
_revoking = _builder.state("revoking")
_over = _builder.state("over")


@_granting.upon(Life.granted).to(_open)
def _admit(life: Life, stay: Stay) -> None:
    stay.owner.opened(stay, life)


@_granting.upon(Life.refused).to(_over)
def _refuse(_life: Life, stay: Stay) -> None:
    stay.owner.forget(stay)


@_granting.upon(Life.end).to(_revoking)
def _leave_early(life: Life, stay: Stay, why: End) -> None:
    stay.why = why
    stay.owner.revoke(stay).addCallback(lambda _: life.gone())


@_open.upon(Life.end).to(_revoking)
def _leave(life: Life, stay: Stay, why: End) -> None:
    stay.why = why
    # Even one that has fired holds on to the session, which holds on to it.
    timer, stay.timer = stay.timer, None
    if timer is not None and timer.active():
        timer.cancel()
    stay.owner.revoke(stay).addCallback(lambda _: life.gone())


@_revoking.upon(Life.gone).to(_over)
def _finish(_life: Life, stay: Stay) -> None:
    stay.owner.ended(stay)


# Late news changes nothing: the grant is going or gone already.
_revoking.upon(Life.end).loop().returns(None)
_revoking.upon(Life.granted).loop().returns(None)
_revoking.upon(Life.refused).loop().returns(None)
_over.upon(Life.end).loop().returns(None)
_over.upon(Life.granted).loop().returns(None)
_over.upon(Life.refused).loop().returns(None)

make_life = _builder.build()


class Session:
    """The connection's view of a session; it says once that the client has closed."""

    __slots__ = ("_life", "_stay")

    def __init__(self, stay: Stay, life: Life) -> None:
        self._stay = stay
        self._life = life

    def client_left(self) -> None:
        """See `gate.ISession`."""
        self._life.end(End.LOST)

    def client_closed(self) -> Deferred[None]:
        """See `gate.ISession`."""
        if self._stay.over:
            return succeed(None)
        answer: Deferred[None] = Deferred()
        self._stay.left = answer
        self._life.end(End.CLIENT)
        return answer

    def data_received(self) -> None:
        """See `gate.ISession`."""
        self._life.end(End.DATA)
