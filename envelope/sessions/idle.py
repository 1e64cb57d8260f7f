"""`--idle`: ends sessions whose grants have let nothing in for so long."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.firewall.cooperate import in_turns
from envelope.protocol import End
from envelope.runtime.timers import Timer
from envelope.sessions.grants import HeldGrants
from envelope.sessions.session import Session

# Seconds between two readings of the kernel's counters at most. A session ends at most twice that
# late: once until a reading shows its last packet, and once until the one that finds it idle.
READ_EVERY: Final = 5.0
# Sessions that are judged in one turn of the reactor (10 us each), and that end in one (0.3 ms).
JUDGED_AT_ONCE: Final = 200
ENDED_AT_ONCE: Final = 16

_log = Logger(namespace="envelope.sessions")


@dataclass(frozen=True, slots=True)
class Seen:
    """When (seconds) a session's grant was first seen to have let so many packets in, or None."""

    packets: int | None
    since: float


def judged(
    last: Seen | None, packets: int | None, opened: float, now: float, idle: float
) -> tuple[Seen, bool]:
    """What is known of a session after a reading, and whether it is idle. Pure.

    `packets` is what the reading showed, None if nothing; then nobody is idle. `opened` is when the
    session opened. Any difference from the last number is traffic.
    """
    if last is None:
        last = Seen(None, opened)
    if packets is None:
        return last, False
    if last.packets is None:
        # What came before the first reading came at its time at the latest.
        return Seen(packets, opened if packets == 0 else now), packets == 0 and now - opened >= idle
    if packets != last.packets:
        return Seen(packets, now), False
    return last, now - last.since >= idle


class IdleWatch:
    """Reads the counters while there are sessions, and ends those that are idle.

    `idle` is `--idle` in seconds. `sessions` returns all sessions.
    """

    def __init__(
        self, reactor: IReactorTime, idle: float, grants: HeldGrants,
        sessions: Callable[[], Collection[Session]],
    ) -> None:
        self._reactor = reactor
        self._idle = idle
        self._grants = grants
        self._sessions = sessions
        self._timer = Timer(reactor)
        self._reading = False
        self._seen: dict[str, Seen] = {}

    def opened(self) -> None:
        """A session has opened."""
        if not self._timer.running and not self._reading:
            self._plan()

    def _plan(self) -> None:
        self._timer.start(min(READ_EVERY, max(1.0, self._idle / 4)), self._look)

    def _look(self) -> None:
        self._reading = True
        Deferred.fromCoroutine(self._judge()).addErrback(
            lambda failure: _log.failure("looking for idle sessions broke", failure=failure)
        ).addCallback(lambda _: self._looked())

    def _looked(self) -> None:
        self._reading = False
        if self._sessions():
            self._plan()

    def stop(self) -> None:
        """No session is left."""
        self._timer.stop()
        self._seen.clear()

    async def _judge(self) -> None:
        await self._grants.read()
        now = self._reactor.seconds()
        before, self._seen = self._seen, {}

        def judge(part: list[Session]) -> list[Session]:
            return [each for each in part if self._is_idle(each, before, now)]

        idle = await in_turns(self._reactor, [*self._sessions()], judge, JUDGED_AT_ONCE)
        await in_turns(self._reactor, idle, _end, ENDED_AT_ONCE)

    def _is_idle(self, session: Session, before: dict[str, Seen], now: float) -> bool:
        data = session.data
        if data.grant is None or data.opened_at is None or data.end is not None:
            return False
        traffic = self._grants.traffic(data.grant)
        packets = None if traffic is None else traffic.packets
        name = data.session_id
        self._seen[name], idle = judged(
            before.get(name), packets, data.opened_at, now, self._idle
        )
        return idle


def _end(sessions: list[Session]) -> list[None]:
    for session in sessions:
        session.machine.end(End.IDLE)
    return []
