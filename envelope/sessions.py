"""Who is in, until when, and in which order things end.

A session's states are one declared machine: its grant is being made, it is open, its grant is
being taken away, it is over. It holds a slot from the first of these to the last, so a slot is
never lost and never counted twice, and it ends its connection only once its grant is gone.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from automat import TypeMachineBuilder
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from envelope import gate
from envelope.admission import (
    NOT_FOUND,
    STOPPING,
    AccessRequest,
    Admission,
    Decision,
    Expectations,
    Load,
    Refusal,
    decide,
)
from envelope.config import Address, Config, Network
from envelope.firewall import FirewallError, IFirewall
from envelope.firewall.ledger import Ledger
from envelope.metrics import Metrics
from envelope.tokens import Claims, TokenRefusal

_log = Logger(namespace="envelope.sessions")


class End(Enum):
    """Why a session ended: its metric label, and how its socket is closed."""

    CLIENT = ("client", 1000, "")
    DEADLINE = ("deadline", 4000, "deadline")
    DATA = ("data", 1003, "data")
    REVOKED = ("revoked", 4001, "revoked")
    SHUTDOWN = ("shutdown", 1001, "stopping")
    LOST = ("lost", None, "")

    def __init__(self, label: str, code: int | None, reason: str) -> None:
        self.label = label
        self.code = code
        self.reason = reason


class _Life(Protocol):
    """What can happen to a session."""

    def granted(self) -> None:
        """The rule is in force."""

    def refused(self) -> None:
        """The firewall could not make the grant."""

    def end(self, why: End) -> None:
        """Somebody or something ends the session."""

    def gone(self) -> None:
        """The kernel lets the network in no more on this session's account."""


@dataclass(eq=False)
class _Stay:
    """One session's particulars, and what its transitions do."""

    owner: Sessions
    session_id: str
    address: Address | None
    network: Network | None
    admission: Admission
    carrier: gate.ICarrier
    asked_at: float
    since: float
    admitted: Deferred[gate.ISession] = field(default_factory=Deferred)
    left: Deferred[None] = field(default_factory=Deferred)
    why: End | None = None
    opened_at: float | None = None
    timer: IDelayedCall | None = None

    @property
    def family(self) -> str:
        return "ipv6" if self.address is not None and self.address.version == 6 else "ipv4"


_builder = TypeMachineBuilder(_Life, _Stay)
_granting = _builder.state("granting")
_open = _builder.state("open")
_revoking = _builder.state("revoking")
_over = _builder.state("over")


@_granting.upon(_Life.granted).to(_open)
def _admit(life: _Life, stay: _Stay) -> None:
    stay.owner.opened(stay, lambda: life.end(End.DEADLINE))


@_granting.upon(_Life.refused).to(_over)
def _refuse(_life: _Life, stay: _Stay) -> None:
    stay.owner.forget(stay)


@_granting.upon(_Life.end).to(_revoking)
def _leave_early(life: _Life, stay: _Stay, why: End) -> None:
    stay.why = why
    stay.owner.revoke(stay).addCallback(lambda _: life.gone())


@_open.upon(_Life.end).to(_revoking)
def _leave(life: _Life, stay: _Stay, why: End) -> None:
    stay.why = why
    if stay.timer is not None and stay.timer.active():
        stay.timer.cancel()
    stay.owner.revoke(stay).addCallback(lambda _: life.gone())


@_revoking.upon(_Life.gone).to(_over)
def _finish(_life: _Life, stay: _Stay) -> None:
    stay.owner.ended(stay)


# Late news changes nothing: the grant is going or gone already.
_revoking.upon(_Life.end).loop().returns(None)
_revoking.upon(_Life.granted).loop().returns(None)
_revoking.upon(_Life.refused).loop().returns(None)
_over.upon(_Life.end).loop().returns(None)
_over.upon(_Life.granted).loop().returns(None)
_over.upon(_Life.refused).loop().returns(None)

_make_life = _builder.build()


@implementer(gate.ISession)
class Session:
    """The connection's view of a session."""

    def __init__(self, stay: _Stay, life: _Life) -> None:
        self._stay = stay
        self._life = life

    def client_left(self) -> None:
        """See `gate.ISession`."""
        self._life.end(End.LOST)

    def client_closed(self) -> Deferred[None]:
        """See `gate.ISession`."""
        answer: Deferred[None] = Deferred()
        self._stay.left.addCallback(lambda _: answer.callback(None))
        self._life.end(End.CLIENT)
        return answer

    def data_received(self) -> None:
        """See `gate.ISession`."""
        self._life.end(End.DATA)


@implementer(gate.IGate)
class Sessions:
    """Every session there is; the front's gate."""

    def __init__(
        self,
        reactor: IReactorTime,
        config: Config,
        firewall: IFirewall,
        verify: Callable[[str, float], Claims | TokenRefusal],
        metrics: Metrics,
        wall: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._firewall = firewall
        self._verify = verify
        self._metrics = metrics
        self._wall = wall
        self._expected = Expectations(
            config.subject, config.token_required, config.timeout, config.max_duration
        )
        self._ledger = Ledger()
        self._lives: dict[str, tuple[_Stay, _Life]] = {}
        self._empty: list[Deferred[None]] = []
        self.stopping = False

    def __len__(self) -> int:
        return len(self._lives)

    def load(self) -> Load:
        """How busy the service is now."""
        return Load(
            stopping=self.stopping,
            sessions=len(self._lives),
            max_clients=self._config.max_clients,
            monitoring_slots=self._config.monitoring_slots,
        )

    def decide(  # the address is the front's to know, and a later load limit's to judge
        self, request: AccessRequest, address: Address | None  # noqa: ARG002
    ) -> Decision:
        """See `gate.IGate`."""
        decision = decide(request, self._verify, self._expected, self.load(), self._wall())
        known_path = decision.outcome is not NOT_FOUND
        self._metrics.token(known_path, decision.token_accepted, decision.token_reason)
        if isinstance(decision.outcome, Refusal):
            self.count(decision.outcome.reason)
        return decision

    def count(self, reason: str) -> None:
        """See `gate.IGate`."""
        if reason:
            self._metrics.request(reason)

    def admit(
        self, address: Address | None, admission: Admission, carrier: gate.ICarrier
    ) -> Deferred[gate.ISession]:
        """See `gate.IGate`."""
        stay = _Stay(
            owner=self,
            session_id=secrets.token_hex(6),
            address=address,
            network=None if address is None else self._config.network_of(address),
            admission=admission,
            carrier=carrier,
            asked_at=self._reactor.seconds(),
            since=self._wall(),
        )
        life = _make_life(stay)
        self._lives[stay.session_id] = (stay, life)
        stay.admitted = Deferred(lambda _: life.end(End.LOST))
        session = Session(stay, life)
        self._grant(stay).addCallbacks(
            lambda _: self._granted(session, stay, life),
            lambda failure: self._refused(failure, stay, life),
        )
        return stay.admitted

    def _grant(self, stay: _Stay) -> Deferred[None]:
        if stay.network is None:
            return succeed(None)
        until = self._ledger.enter(stay.session_id, stay.network, stay.admission.deadline)
        return self._firewall.allow(stay.network, until)

    def _granted(self, session: Session, stay: _Stay, life: _Life) -> None:
        life.granted()
        if stay.opened_at is not None and stay.why is None:
            stay.admitted.callback(session)

    def _refused(self, failure: Failure, stay: _Stay, life: _Life) -> None:
        failure.trap(FirewallError)
        if stay.why is None:
            _log.error("a grant failed: {error}", error=failure.getErrorMessage())
            life.refused()
            stay.admitted.errback(failure)

    def revoke(self, stay: _Stay) -> Deferred[None]:
        """Take the session out of its network's grant, and the grant away with its last."""
        if stay.network is None:
            return succeed(None)
        asked_at = self._reactor.seconds()
        network, end = self._ledger.leave(stay.session_id)
        if end is not None:
            # Others stay: the grant shortens to the longest of them, which nobody waits for.
            self._firewall.allow(network, end).addErrback(lambda f: f.trap(FirewallError) and None)
            return succeed(None)
        done = self._firewall.revoke(network)
        return done.addCallback(
            lambda _: self._metrics.revoked(self._reactor.seconds() - asked_at)
        )

    def opened(self, stay: _Stay, at_deadline: Callable[[], None]) -> None:
        """The session is open: start its clock."""
        now = self._reactor.seconds()
        stay.opened_at = now
        remaining = max(0.0, stay.admission.duration - (now - stay.asked_at))
        stay.timer = self._reactor.callLater(remaining, at_deadline)
        self._metrics.granted(stay.family, now - stay.asked_at)
        self._metrics.session_opened(stay.family)
        _log.info(
            "session {id} from {address} opened for {seconds:.0f} s",
            id=stay.session_id, address=stay.address, seconds=stay.admission.duration,
        )

    def ended(self, stay: _Stay) -> None:
        """The grant is gone: close the socket, free the slot."""
        why = stay.why or End.LOST
        self._drop(stay)
        if stay.opened_at is None:
            if why is not End.LOST:
                stay.admitted.errback(gate.Refused(STOPPING))
                self.count(STOPPING.reason)
            return
        seconds = self._reactor.seconds() - stay.opened_at
        self._metrics.session_ended(stay.family, why.label, seconds)
        self._metrics.request("success")
        _log.info(
            "session {id} from {address} ended after {seconds:.1f} s: {end}",
            id=stay.session_id, address=stay.address, seconds=seconds, end=why.label,
        )
        stay.left.callback(None)
        if why.code is not None and why is not End.CLIENT:
            stay.carrier.close(why.code, why.reason)

    def forget(self, stay: _Stay) -> None:
        """The grant was never made: free the slot."""
        if stay.network is not None:
            network, end = self._ledger.leave(stay.session_id)
            if end is None:
                # Nothing is in force; this only makes sure that nothing comes late.
                self._firewall.revoke(network)
        self._drop(stay)
        self._metrics.request("iptables-grant-failure")

    def _drop(self, stay: _Stay) -> None:
        del self._lives[stay.session_id]
        if not self._lives:
            waiting, self._empty = self._empty, []
            for done in waiting:
                done.callback(None)

    def end_all(self, why: End) -> None:
        """End every session."""
        for _, life in list(self._lives.values()):
            life.end(why)

    def end_session(self, session_id: str, why: End = End.REVOKED) -> bool:
        """End one session; False when there is none of that name."""
        found = self._lives.get(session_id)
        if found is not None:
            found[1].end(why)
        return found is not None

    def when_empty(self) -> Deferred[None]:
        """Fires once no session is left."""
        if not self._lives:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._empty.append(done)
        return done

