"""Those who wait for a network to be let in or shut out, and how they are answered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from envelope.firewall import FirewallError
from envelope.firewall.kernel import Key

# Seconds after which a grant that could not be made is refused: the contract's 10 s, less a
# margin for the answer itself.
ALLOW_WAIT: Final = 9.0


class Answers:
    """Answers owed, by network; several callers may wait for one.

    `too_late` is told of a network whose grant has been waited for long enough.
    """

    def __init__(self, reactor: IReactorTime, too_late: Callable[[Key], None]) -> None:
        self._reactor = reactor
        self._too_late = too_late
        self._allowing: dict[Key, list[tuple[Deferred[None], IDelayedCall]]] = {}
        self._revoking: dict[Key, list[Deferred[None]]] = {}

    @property
    def awaited(self) -> list[Key]:
        """The networks that somebody waits for."""
        return [*self._allowing, *self._revoking]

    @property
    def allowing(self) -> list[Key]:
        """The networks that somebody waits for to be let in."""
        return list(self._allowing)

    @property
    def revoking(self) -> list[Key]:
        """The networks that somebody waits for to be shut out."""
        return list(self._revoking)

    def await_allowed(self, key: Key) -> Deferred[None]:
        """An answer that fires once the network is let in, or fails with `FirewallError`."""
        answer: Deferred[None] = Deferred()
        timer = self._reactor.callLater(ALLOW_WAIT, self._too_late, key)
        self._allowing.setdefault(key, []).append((answer, timer))
        return answer

    def await_revoked(self, key: Key) -> Deferred[None]:
        """An answer that fires once the network is shut out."""
        answer: Deferred[None] = Deferred()
        self._revoking.setdefault(key, []).append(answer)
        return answer

    def is_awaited(self, key: Key) -> bool:
        """Whether somebody waits for the network."""
        return key in self._allowing or key in self._revoking

    def is_allowing(self, key: Key) -> bool:
        """Whether somebody waits for the network to be let in."""
        return key in self._allowing

    def allowed(self, key: Key) -> None:
        """Say that the network is let in."""
        for answer, timer in self._allowing.pop(key, ()):
            _cancel(timer)
            answer.callback(None)

    def refused(self, key: Key, why: str) -> None:
        """Say that the network could not be let in, and why, in one line."""
        for answer, timer in self._allowing.pop(key, ()):
            _cancel(timer)
            answer.errback(FirewallError(why))

    def revoked(self, key: Key) -> None:
        """Say that the network is shut out, or is another's concern now."""
        for answer in self._revoking.pop(key, ()):
            answer.callback(None)


def _cancel(timer: IDelayedCall) -> None:
    # The one that was too late is the one that refuses.
    if timer.active():
        timer.cancel()
