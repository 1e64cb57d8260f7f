"""The open sessions: who is admitted, until when, and in which order a session ends.

A session holds a slot until its grant is revoked (`envelope.sessions.session` has its states).
Sessions of one network may share a grant (`envelope.sessions.sharing`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container
from dataclasses import replace

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from envelope.addresses import Address, family_of
from envelope.config import Config
from envelope.config.subjects import service_numbers
from envelope.credentials.tokens import Claims, TokenReason, TokenRefusal
from envelope.firewall import FirewallError, IFirewall
from envelope.protocol import End
from envelope.runtime.timers import Timer
from envelope.sessions import gate
from envelope.sessions.admission import (
    AccessRequest,
    Admission,
    Decision,
    Expectations,
    Load,
    TokenPass,
    decide,
)
from envelope.sessions.answers import (
    NO_ADDRESS,
    OVER_RATE,
    REVOKED,
    STOPPING,
    Refusal,
    Refused,
    Status,
)
from envelope.sessions.clientaddress import LOOPBACK, can_be_let_in
from envelope.sessions.events import log_ended, log_failed, log_full, log_given_up, log_opened
from envelope.sessions.grants import HeldGrants
from envelope.sessions.idle import IdleWatch
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.session import Session, SessionData, SessionMachine, make_machine
from envelope.sessions.slots import TakenSlots
from envelope.sessions.table import SessionTable
from envelope.sessions.usedtokens import UsedTokens
from envelope.sessions.view import Slots


class Sessions(SessionTable):
    """All sessions of the service, and the front's gate (`gate.IGate`).

    `wall` returns seconds since the epoch. `over_rate` says whether the transmit rate is over its
    limit; None without a limit. `own` has this host's addresses. While `stopping` is true, no
    client is admitted.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        config: Config,
        firewall: IFirewall,
        verify: Callable[[str, float], Claims | TokenRefusal],
        metrics: SessionMetrics,
        wall: Callable[[], float],
        over_rate: Callable[[], bool] | None = None,
        own: Container[Address] = (),
    ) -> None:
        super().__init__(HeldGrants(firewall, metrics, reactor.seconds))
        self._reactor = reactor
        self._config = config
        self._verify = verify
        self._metrics = metrics
        self._wall = wall
        self._over_rate = over_rate
        self._own = None if config.device == LOOPBACK else own
        self._expected = Expectations(
            service_numbers(config.subject), config.token_required, config.timeout,
            config.max_duration,
        )
        self._needs_address = config.firewall != "none"
        self._taken = TakenSlots()
        self._tokens = UsedTokens(config.token_use, config.network_of)
        self._told_full = False
        self._idle: IdleWatch | None = None
        if config.idle is not None:
            self._idle = IdleWatch(reactor, config.idle, self._grants, self._sessions.values)
        self.stopping = False

    # -- the front's side (`gate.IGate`) ---------------------------------------------------

    def decide(self, request: AccessRequest, address: Address | None) -> Decision:
        """See `gate.IGate`."""
        load = self._load()
        decision = decide(request, self._verify, self._expected, load, self._wall(), address)
        admitted = isinstance(decision.outcome, Admission)
        if admitted and self._needs_address and not can_be_let_in(address, self._own):
            decision = replace(decision, outcome=NO_ADDRESS)
        if decision.token is TokenReason.REPLAYED:
            self._told_full = log_full(self._tokens, self._told_full)
        self._metrics.token(decision.token)
        if self._over_rate is not None and isinstance(decision.token, TokenPass):
            self._metrics.rate_check(decision.outcome is not OVER_RATE)
        if isinstance(decision.outcome, Refusal) and decision.outcome.counted is not None:
            self.count(decision.outcome.counted)
        return decision

    @property
    def slots(self) -> Slots:
        """The slots of `--max-clients`."""
        kept = self._config.monitoring_slots
        return Slots(self._taken.beyond(kept), self._config.max_clients)

    def _load(self) -> Load:
        self._tokens.forget(self._reactor.seconds())
        return Load(
            stopping=self.stopping,
            taken=self._taken,
            max_clients=self._config.max_clients,
            monitoring_slots=self._config.monitoring_slots,
            over_rate=self._over_rate is not None and self._over_rate(),
            tokens=self._tokens,
        )

    def count(self, status: Status) -> None:
        """See `gate.IGate`."""
        self._metrics.request(status)

    def admit(
        self, address: Address | None, admission: Admission, carrier: gate.ICarrier
    ) -> Deferred[gate.ISession]:
        """See `gate.IGate`."""
        data = SessionData(
            owner=self,
            session_id=secrets.token_hex(6),
            address=address,
            network=None if address is None else self._config.network_of(address),
            admission=admission,
            carrier=carrier,
            deadline=Timer(self._reactor),
            asked_at=self._reactor.seconds(),
        )
        machine = make_machine(data)
        session = Session(data, machine)
        self._add(session)
        self._tokens.reserve(admission.use)
        self._taken.enter(data.visitor, family_of(address), admission.monitoring)
        self._metrics.slots_used(self.slots.used)
        admitted: Deferred[gate.ISession] = Deferred(lambda _: machine.end(End.LOST))
        data.admitted = admitted
        self._grants.ask(data).addCallbacks(
            lambda _: self._granted(session, data, machine),
            lambda failure: self._refused(failure, data, machine),
        )
        return admitted

    def _granted(self, session: Session, data: SessionData, machine: SessionMachine) -> None:
        machine.granted()
        if data.opened_at is not None and data.end is None:
            data.take_admitted().callback(session)

    def _refused(self, failure: Failure, data: SessionData, machine: SessionMachine) -> None:
        failure.trap(FirewallError)
        if data.end is None:
            log_failed(data, failure.getErrorMessage())
            machine.refused()
            data.take_admitted().errback(failure)

    # -- the session's side (`session.SessionOwner`) ---------------------------------------

    def opened(self, data: SessionData, machine: SessionMachine) -> None:
        """See `SessionOwner`."""
        now = self._reactor.seconds()
        data.opened_at, data.since = now, self._wall()
        data.deadline.start(data.remaining, machine.end, End.DEADLINE)
        self._metrics.granted(now - data.asked_at)
        self._metrics.session_opened(data.family)
        self._tokens.use_up(data.admission.use, data.since, now)
        if self._idle is not None:
            self._idle.opened()
        self._tell_watchers()
        log_opened(data)

    def revoke(self, data: SessionData) -> Deferred[None]:
        """See `SessionOwner`."""
        return self._grants.leave(data)

    def given_up(self, data: SessionData) -> None:
        """See `SessionOwner`."""
        self._tokens.give_back(data.admission.use)
        log_given_up(data, data.end or End.LOST)
        if data.end is not End.LOST:
            refusal = REVOKED if data.end is End.REVOKED else STOPPING
            assert refusal.counted is not None
            self.count(refusal.counted)
            data.take_admitted().errback(Refused(refusal))

    def ended(self, data: SessionData) -> None:
        """See `SessionOwner`."""
        end = data.end or End.LOST
        self._free_slot(data)
        if data.opened_at is None:
            return
        seconds = self._reactor.seconds() - data.opened_at
        self._metrics.session_ended(data.family, end, seconds)
        self._metrics.request(Status.SUCCESS)
        log_ended(data, seconds, end)
        data.over = True
        if data.closed is not None:
            data.closed.callback(None)
        if end.code is not None and end is not End.CLIENT:
            data.carrier.close(end.code, end.reason)

    def failed(self, data: SessionData) -> None:
        """See `SessionOwner`."""
        # The grant is not in force; this prevents that it comes into force late.
        self._grants.leave(data)
        self._tokens.give_back(data.admission.use)
        self._free_slot(data)
        self._metrics.request(Status.GRANT_FAILED)

    def _free_slot(self, data: SessionData) -> None:
        self._taken.leave(data.visitor, family_of(data.address), data.admission.monitoring)
        self._metrics.slots_used(self.slots.used)
        self._remove(data.session_id)
        if self._idle is not None and not self._sessions:
            self._idle.stop()
