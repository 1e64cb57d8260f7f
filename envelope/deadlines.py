"""The latest of many deadlines, which are added, moved and removed. Pure.

It is asked for at every change. So many deadlines are kept in a heap: an outdated entry is removed
when it reaches the top, and all outdated ones when they are the greater part. With few there is no
heap: comparing all is faster. A single one, as of a network with one client, needs no dict, which
would take 200 bytes a session.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

_FEW: Final = 16
_SLACK: Final = 64


class LatestDeadline:
    """Deadlines by name, in seconds of any one clock; each call takes O(log n) on average."""

    __slots__ = ("_deadline", "_deadlines", "_heap", "_name")

    def __init__(self) -> None:
        # The only deadline and its name, while there is at most one and no dict.
        self._name: str | None = None
        self._deadline = 0.0
        self._deadlines: dict[str, float] | None = None
        self._heap: list[tuple[float, str]] | None = None

    def __len__(self) -> int:
        if self._deadlines is None:
            return int(self._name is not None)
        return len(self._deadlines)

    def put(self, name: str, deadline: float) -> None:
        """Set or move the deadline of `name`."""
        if self._deadlines is None:
            if self._name is None or self._name == name:
                self._name, self._deadline = name, deadline
                return
            self._deadlines = {self._name: self._deadline}
        self._deadlines[name] = deadline
        if self._heap is not None:
            heappush(self._heap, (-deadline, name))
        entries = 0 if self._heap is None else len(self._heap)
        if entries > 2 * len(self._deadlines) + _SLACK or (
            not entries and len(self._deadlines) > _FEW
        ):
            self._heap = [(-deadline, name) for name, deadline in self._deadlines.items()]
            heapify(self._heap)

    def drop(self, name: str) -> None:
        """Remove `name`, if it is there."""
        if self._deadlines is not None:
            self._deadlines.pop(name, None)
        elif self._name == name:
            self._name = None

    @property
    def latest(self) -> float | None:
        """The latest deadline; None if there is none."""
        if self._deadlines is None:
            return None if self._name is None else self._deadline
        if self._heap is None:
            return max(self._deadlines.values(), default=None)
        while self._heap:
            negative, name = self._heap[0]
            if self._deadlines.get(name) == -negative:
                return -negative
            heappop(self._heap)
        return None
