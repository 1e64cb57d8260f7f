"""Callers that wait for a network to be let in or shut out, and how they are answered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from envelope.firewall import FirewallError, Traffic
from envelope.firewall.kernel import Key
from envelope.runtime.timers import Timer

# Seconds after which a grant that could not be made is refused: the contract's 10 s, less a
# margin for the answer itself.
ALLOW_WAIT: Final = 9.0
# Callers answered in one turn of the reactor; each then logs a line and writes to a socket, which
# takes some 0.3 ms.
ANSWERS_A_TURN: Final = 16


class Waiters:
    """The answers owed, by network; several callers may wait for one.

    `too_late` is called with a network whose grant has not come within `ALLOW_WAIT`. `ended` tells
    what a grant that is over has let in.
    """

    def __init__(
        self, reactor: IReactorTime, too_late: Callable[[Key], None],
        ended: Callable[[Key], Traffic | None],
    ) -> None:
        self._reactor = reactor
        self._too_late = too_late
        self._ended = ended
        self._allowing: dict[Key, list[Deferred[None]]] = {}
        # Until when (reactor seconds) the first caller of each waits: the longest-waiting is first.
        self._until: dict[Key, float] = {}
        # One for all: a timer for each caller would be made and cancelled with every grant.
        self._timer = Timer(reactor)
        self._revoking: dict[Key, list[Deferred[Traffic | None]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._allowing or key in self._revoking

    def among(self, keys: Iterable[Key]) -> list[Key]:
        """Those of `keys` that a caller waits for."""
        return [key for key in keys if key in self._allowing or key in self._revoking]

    @property
    def awaited(self) -> list[Key]:
        """The networks that a caller waits for."""
        return [*self._allowing, *self._revoking]

    @property
    def allowing(self) -> list[Key]:
        """The networks that a caller wants let in, in the order of asking."""
        return list(self._allowing)

    @property
    def revoking(self) -> list[Key]:
        """The networks that a caller wants shut out."""
        return list(self._revoking)

    def await_allowed(self, key: Key) -> Deferred[None]:
        """Return an answer that fires once the network is let in, or fails with `FirewallError`."""
        answer: Deferred[None] = Deferred()
        waiting = self._allowing.setdefault(key, [])
        waiting.append(answer)
        if len(waiting) == 1:
            self._until[key] = self._reactor.seconds() + ALLOW_WAIT
            if not self._timer.running:
                self._timer.start(ALLOW_WAIT, self._look_at_waits)
        return answer

    def _look_at_waits(self) -> None:
        now = self._reactor.seconds()
        for key in [key for key, until in self._until.items() if until <= now]:
            # One that was answered meanwhile is not late.
            if self._until.pop(key, None) is not None:
                self._too_late(key)
        for until in self._until.values():
            self._timer.start(until - now, self._look_at_waits)
            return

    def await_revoked(self, key: Key) -> Deferred[Traffic | None]:
        """Return an answer that fires once the network is shut out, with what was let in."""
        answer: Deferred[Traffic | None] = Deferred()
        self._revoking.setdefault(key, []).append(answer)
        return answer

    def is_allowing(self, key: Key) -> bool:
        """Whether a caller wants the network let in."""
        return key in self._allowing

    def allowed(self, key: Key) -> None:
        """Tell the callers that the network is let in."""
        if waiting := self._allowing.pop(key, None):
            self._until.pop(key, None)
            for answer in waiting:
                answer.callback(None)

    def refused(self, key: Key, why: str) -> None:
        """Tell the callers that the network could not be let in, and why, in one line."""
        if waiting := self._allowing.pop(key, None):
            self._until.pop(key, None)
            for answer in waiting:
                answer.errback(FirewallError(why))

    def revoked(self, key: Key) -> None:
        """Tell the callers that the network is shut out, or that a later grant replaced theirs."""
        if waiting := self._revoking.pop(key, None):
            traffic = self._ended(key)
            for answer in waiting:
                answer.callback(traffic)

    def dismiss(self) -> None:
        """Answer everyone: the firewall is closed, and every grant is gone."""
        self._timer.stop()
        for key in self.allowing:
            self.refused(key, "the firewall was closed")
        for key in self.revoking:
            self.revoked(key)

    async def each(self, keys: Collection[Key], settle: Callable[[Key], None]) -> None:
        """Call `settle` with each of `keys`, `ANSWERS_A_TURN` in one turn of the reactor."""
        for number, key in enumerate(keys):
            if number and number % ANSWERS_A_TURN == 0:
                await deferLater(self._reactor, 0)
            settle(key)
