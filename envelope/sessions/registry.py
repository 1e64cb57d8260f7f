"""Who is in, until when, and in which order things end.

Every session holds a slot until its grant is gone (`envelope.sessions.session` has its states);
sessions of one network share that network's grant.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.addresses import Address
from envelope.config import Config
from envelope.credentials.tokens import Claims, TokenRefusal
from envelope.firewall import FirewallError, IFirewall
from envelope.protocol import End
from envelope.sessions import gate
from envelope.sessions.admission import (
    NO_ADDRESS,
    OVER_RATE,
    STOPPING,
    AccessRequest,
    Admission,
    Decision,
    Expectations,
    Load,
    Refusal,
    Refused,
    Status,
    TokenPass,
    decide,
)
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.session import Life, Session, Stay, make_life
from envelope.sessions.sharing import Ledger

__all__ = ["End", "Sessions"]

_log = Logger(namespace="envelope.sessions")


class Sessions:
    """Every session there is; the front's gate."""

    def __init__(
        self,
        reactor: IReactorTime,
        config: Config,
        firewall: IFirewall,
        verify: Callable[[str, float], Claims | TokenRefusal],
        metrics: SessionMetrics,
        wall: Callable[[], float],
        over_rate: Callable[[], bool] | None = None,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._firewall = firewall
        self._verify = verify
        self._metrics = metrics
        self._wall = wall
        self._over_rate = over_rate
        self._expected = Expectations(
            config.subject, config.token_required, config.timeout, config.max_duration
        )
        self._guards = config.firewall != "none"
        self._ledger = Ledger()
        self._lives: dict[str, tuple[Stay, Life]] = {}
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
            over_rate=self._over_rate is not None and self._over_rate(),
        )

    def decide(self, request: AccessRequest, address: Address | None) -> Decision:
        """See `gate.IGate`."""
        decision = decide(request, self._verify, self._expected, self.load(), self._wall())
        if isinstance(decision.outcome, Admission) and address is None and self._guards:
            decision = replace(decision, outcome=NO_ADDRESS)
        self._metrics.token(decision.token)
        if self._over_rate is not None and isinstance(decision.token, TokenPass):
            self._metrics.rate_check(decision.outcome is not OVER_RATE)
        if isinstance(decision.outcome, Refusal):
            self._count(decision.outcome)
        return decision

    def count(self, status: Status) -> None:
        """See `gate.IGate`."""
        self._metrics.request(status)

    def _count(self, refusal: Refusal) -> None:
        if refusal.counted is not None:
            self._metrics.request(refusal.counted)

    def admit(
        self, address: Address | None, admission: Admission, carrier: gate.ICarrier
    ) -> Deferred[gate.ISession]:
        """See `gate.IGate`."""
        stay = Stay(
            owner=self,
            session_id=secrets.token_hex(6),
            address=address,
            network=None if address is None else self._config.network_of(address),
            admission=admission,
            carrier=carrier,
            asked_at=self._reactor.seconds(),
            since=self._wall(),
        )
        life = make_life(stay)
        self._lives[stay.session_id] = (stay, life)
        admitted: Deferred[gate.ISession] = Deferred(lambda _: life.end(End.LOST))
        stay.admitted = admitted
        session = Session(stay, life)
        self._grant(stay).addCallbacks(
            lambda _: self._granted(session, stay, life),
            lambda failure: self._refused(failure, stay, life),
        )
        return admitted

    def _grant(self, stay: Stay) -> Deferred[None]:
        if stay.network is None:
            return succeed(None)
        deadline = stay.asked_at + stay.admission.duration
        end = self._ledger.enter(stay.session_id, stay.network, deadline)
        return self._firewall.allow(stay.network, end)

    def _granted(self, session: Session, stay: Stay, life: Life) -> None:
        life.granted()
        if stay.opened_at is not None and stay.why is None:
            _answer(stay).callback(session)

    def _refused(self, failure: Failure, stay: Stay, life: Life) -> None:
        failure.trap(FirewallError)
        if stay.why is None:
            _log.error("a grant failed: {error}", error=failure.getErrorMessage())
            life.refused()
            _answer(stay).errback(failure)

    def revoke(self, stay: Stay) -> Deferred[None]:
        """Take the session out of its network's grant, and the grant away with its last."""
        if stay.network is None:
            return succeed(None)
        asked_at = self._reactor.seconds()
        done = self._strike_out(stay)
        return succeed(None) if done is None else done.addCallback(
            lambda _: self._metrics.revoked(self._reactor.seconds() - asked_at)
        )

    def _strike_out(self, stay: Stay) -> Deferred[None] | None:
        network, end = self._ledger.leave(stay.session_id)
        if end is None:
            return self._firewall.revoke(network)
        # Others stay: the grant shortens to the longest of them, which nobody waits for.
        shortened = self._firewall.allow(network, end)
        shortened.addErrback(lambda f: f.trap(FirewallError) and None)
        return None

    def opened(self, stay: Stay, life: Life) -> None:
        """The session is open: start its clock."""
        now = self._reactor.seconds()
        stay.opened_at = now
        remaining = max(0.0, stay.admission.duration - (now - stay.asked_at))
        stay.timer = self._reactor.callLater(remaining, life.end, End.DEADLINE)
        self._metrics.granted(now - stay.asked_at)
        self._metrics.session_opened(stay.family)
        _log.info(
            "session {id} from {address} opened for {seconds:.0f} s",
            id=stay.session_id, address=stay.address, seconds=stay.admission.duration,
        )

    def ended(self, stay: Stay) -> None:
        """The grant is gone: close the socket, free the slot."""
        why = stay.why or End.LOST
        self._drop(stay)
        if stay.opened_at is None:
            if why is not End.LOST:
                _answer(stay).errback(Refused(STOPPING))
                self._count(STOPPING)
            return
        seconds = self._reactor.seconds() - stay.opened_at
        self._metrics.session_ended(stay.family, why, seconds)
        self._metrics.request(Status.SUCCESS)
        _log.info(
            "session {id} from {address} ended after {seconds:.1f} s: {end}",
            id=stay.session_id, address=stay.address, seconds=seconds, end=why,
        )
        stay.over = True
        if stay.left is not None:
            stay.left.callback(None)
        if why.code is not None and why is not End.CLIENT:
            stay.carrier.close(why.code, why.reason)

    def forget(self, stay: Stay) -> None:
        """The grant was never made: free the slot."""
        if stay.network is not None:
            # Nothing of it is in force; this only makes sure that nothing comes late.
            self._strike_out(stay)
        self._drop(stay)
        self._metrics.request(Status.GRANT_FAILED)

    def _drop(self, stay: Stay) -> None:
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


def _answer(stay: Stay) -> Deferred[gate.ISession]:
    """Who waits to be let in, for the one answer that there is; not kept beyond it."""
    answer, stay.admitted = stay.admitted, None
    assert answer is not None, "nobody is answered twice"
    return answer
