"""Which sessions share a grant, and when that grant ends. Pure.

Sessions of one network that are let in to the same service share a grant: it ends with the last of
them, and its end is the latest of their deadlines.
"""

from __future__ import annotations

from envelope.deadlines import LatestDeadline
from envelope.firewall import GrantId


class SharedGrants:
    """The deadlines of the sessions of each grant, in seconds of any one clock."""

    def __init__(self) -> None:
        # By the grants' keys.
        self._deadlines: dict[str, LatestDeadline] = {}
        self._grant_of: dict[str, GrantId] = {}
        # Those that several sessions have had at a time.
        self._joined: set[str] = set()

    def add(self, session_id: str, grant: GrantId, deadline: float) -> float:
        """Add a session of `grant`; return the grant's end.

        Raises `ValueError` if the session was added before.
        """
        if session_id in self._grant_of:
            raise ValueError(f"{session_id} already shares {self._grant_of[session_id]}")
        self._grant_of[session_id] = grant
        deadlines = self._deadlines.get(grant.key)
        if deadlines is None:
            deadlines = self._deadlines[grant.key] = LatestDeadline()
        else:
            self._joined.add(grant.key)
        deadlines.put(session_id, deadline)
        latest = deadlines.latest
        assert latest is not None, "a deadline was just put"
        return latest

    def is_shared(self, session_id: str) -> bool:
        """Whether other sessions have, or had, the grant of this one."""
        return self._grant_of[session_id].key in self._joined

    def remove(self, session_id: str) -> tuple[GrantId, float | None]:
        """Remove a session; return its grant and the grant's end.

        The end is None when no session is left. Raises `KeyError` for an unknown session.
        """
        grant = self._grant_of.pop(session_id)
        deadlines = self._deadlines[grant.key]
        deadlines.drop(session_id)
        if not deadlines:
            del self._deadlines[grant.key]
            self._joined.discard(grant.key)
            return grant, None
        return grant, deadlines.latest
