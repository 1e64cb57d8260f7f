"""Which connection to a site for operators is dropped when there are too many. Pure.

Connections that have not asked for anything go first, then those that wait for another request,
then streams that are not being read. A stream that is being read is never dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")


class Crowd(Generic[C]):
    """The connections of one site; at most `most` of them.

    `stalls` tells whether a stream's client does not read it.
    """

    def __init__(self, most: int, stalls: Callable[[C], bool]) -> None:
        self._most = most
        self._stalls = stalls
        # Dicts for their order: the connection that was idle for longest is first.
        self._silent: dict[C, None] = {}
        self._asked: dict[C, None] = {}
        self._streams: dict[C, None] = {}

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    def arrived(self, connection: C) -> C | None:
        """Note a new connection; return the one to drop, which may be the new one, if any."""
        self._silent[connection] = None
        if len(self._silent) + len(self._asked) + len(self._streams) <= self._most:
            return None
        stalled = (stream for stream in self._streams if self._stalls(stream))
        for candidates in (self._silent, self._asked, stalled):
            for candidate in candidates:
                if candidate is not connection:
                    self.left(candidate)
                    return candidate
        self.left(connection)
        return connection

    def asked(self, connection: C) -> None:
        """A connection's request was answered."""
        self.left(connection)
        self._asked[connection] = None

    def streams_to(self, connection: C) -> None:
        """A connection's request is answered by a stream."""
        self.left(connection)
        self._streams[connection] = None

    def left(self, connection: C) -> None:
        """A connection has ended."""
        for group in (self._silent, self._asked, self._streams):
            group.pop(connection, None)
