"""What a service tells its operators: whether it is ready, what to look at, and who is let in."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from envelope.admin.history import EVERY, History, Sample
from envelope.admin.overview import Overview
from envelope.config import Config
from envelope.credentials.current import Credentials
from envelope.firewall import IFirewall
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from envelope.sessions.txrate import TransmitRate

_log = Logger(namespace="envelope.admin")

RUNNING: Final = "running"


class Status:
    """The state of one service; what it is asked for is collected at that moment.

    `state` returns "running", or what the service does instead. `rate` is None without
    `--tx-device`. `wall` returns seconds since the epoch, `steady` seconds that a step of
    that clock does not change.
    """

    def __init__(
        self,
        config: Config,
        state: Callable[[], str],
        sessions: Sessions,
        metrics: SessionMetrics,
        firewall: IFirewall,
        credentials: Credentials,
        rate: TransmitRate | None,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._state = state
        self._sessions = sessions
        self._metrics = metrics
        self._firewall = firewall
        self._credentials = credentials
        self._rate = rate
        self._wall = wall
        self._steady = steady
        self._started = steady()
        self._history = History()
        self._refused = {**metrics.refusals}
        self._sampling = LoopingCall.withCount(self._sample)

    def start(self, clock: IReactorTime) -> None:
        """Keep the history of the last ten minutes from now on."""
        self._sampling.clock = clock
        self._sampling.start(EVERY, now=False).addErrback(
            lambda failure: _log.failure("the history broke", failure=failure)
        )

    def stop(self) -> None:
        """Keep it no more."""
        if self._sampling.running:
            self._sampling.stop()

    def reasons(self) -> list[str]:
        """Why clients should not be sent here now, a line each."""
        state = self._state()
        reasons = [] if state == RUNNING else [state]
        return reasons + self._firewall.problems() + self._credentials.problems()

    def reasons_for_balancers(self) -> list[str]:
        """The same, and why the next client would be refused although all is well."""
        reasons = self.reasons()
        slots = self._sessions.slots
        if slots.used >= slots.total:
            reasons.append("no slot is free")
        if self._rate is not None and self._rate.over():
            reasons.append("the device sends more than --tx-max-rate")
        return reasons

    def warnings(self) -> list[str]:
        """What an operator should look after although clients are served, a line each."""
        rate = [] if self._rate is None else self._rate.warnings()
        return self._credentials.warnings() + self._firewall.warnings() + rate

    def when_sessions_change(self, call: Callable[[], None]) -> None:
        """Call `call` from now on each time a session has opened or ended."""
        self._sessions.watchers.append(call)

    async def read(self) -> dict[str, Any]:
        """The `/status` object, after a reading of what grants have let in."""
        await self._sessions.read_traffic()
        return self.as_object()

    def as_object(self) -> dict[str, Any]:
        """The `/status` object; see `envelope.admin.overview`."""
        return Overview(
            config=self._config,
            now=self._wall(),
            uptime=self._steady() - self._started,
            slots=self._sessions.slots,
            sessions=self._sessions.views(),
            refusals=self._metrics.refusals,
            rules=self._firewall.rules(),
            keys=self._credentials.keys_in_use(),
            certificate=self._credentials.certificate_in_use(),
            reasons=self.reasons(),
            warnings=self.warnings(),
            history=self._history,
            rate=None if self._rate is None else self._rate.bits_per_second,
        ).as_object()

    def _sample(self, count: int) -> None:
        before, self._refused = self._refused, {**self._metrics.refusals}
        refusals = {
            reason: number - before[reason]
            for reason, number in self._refused.items() if number != before[reason]
        }
        grants = [*self._metrics.recent_grants]
        self._metrics.recent_grants.clear()
        rate = None if self._rate is None else self._rate.bits_per_second
        self._history.add(Sample(refusals, grants, rate), self._wall(), count - 1)
