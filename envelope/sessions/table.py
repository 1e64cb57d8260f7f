"""The sessions by their ids: what an operator sees of them, and how they are ended together."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred, succeed

from envelope.addresses import Network
from envelope.protocol import End
from envelope.runtime.condition import Condition
from envelope.sessions.grants import HeldGrants
from envelope.sessions.session import Session
from envelope.sessions.view import SessionView


class SessionTable:
    """All sessions that hold a slot: those whose grant is being made or revoked are among them.

    `watchers` are called each time `views` has one more or one less.
    """

    def __init__(self, grants: HeldGrants) -> None:
        self._grants = grants
        self._sessions: dict[str, Session] = {}
        self._emptied = Condition()
        self._left = Condition()
        self.watchers: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def _add(self, session: Session) -> None:
        self._sessions[session.data.session_id] = session

    def _tell_watchers(self) -> None:
        for call in self.watchers:
            call()

    def _remove(self, session_id: str) -> None:
        del self._sessions[session_id]
        self._tell_watchers()
        self._left.notify_all()
        if not self._sessions:
            self._emptied.notify_all()

    def views(self) -> list[SessionView]:
        """Every session that has opened, in the order in which they were admitted.

        What their grants let in is as of the last reading. One begins now, unless one has just
        before; `read_traffic` waits for it.
        """
        self._grants.refresh()
        return [
            each.data.view(self._grants.traffic(each.data.grant))
            for each in self._sessions.values() if each.data.opened_at is not None
        ]

    def read_traffic(self) -> Deferred[None]:
        """Read what the sessions' grants have let in, for `views`; never fails."""
        return self._grants.read()

    def revoke_sessions(self, ids: Iterable[str]) -> list[str]:
        """End these sessions with 4001 `revoked`; return the ids that no session has."""
        chosen = {each: self._sessions.get(each) for each in ids}
        _end((session for session in chosen.values() if session is not None), End.REVOKED)
        return [each for each, session in chosen.items() if session is None]

    def revoke_network(self, network: Network) -> int:
        """End every session whose address lies in `network` likewise; return how many these are."""
        return _end((
            each for each in self._sessions.values()
            if each.data.address is not None and each.data.address in network
        ), End.REVOKED)

    def revoke_all(self) -> int:
        """End every session likewise; return how many these are."""
        return _end(self._sessions.values(), End.REVOKED)

    async def when_revoked(self) -> None:
        """Return once none is left of the sessions that were ended like this: no grant is."""
        ended = [each for each, session in self._sessions.items()
                 if session.data.end is End.REVOKED]
        while ended:
            if ended[-1] in self._sessions:
                await self._left.wait()
            else:
                ended.pop()

    def end_all(self, why: End) -> None:
        """End every session."""
        _end(self._sessions.values(), why)

    def when_empty(self) -> Deferred[None]:
        """Fires once no session is left."""
        return self._emptied.wait() if self._sessions else succeed(None)


def _end(sessions: Iterable[Session], why: End) -> int:
    chosen = list(sessions)
    for session in chosen:
        session.machine.end(why)
    return len(chosen)
