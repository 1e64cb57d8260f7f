"""The latest of many deadlines, which are added, moved and removed. Pure.

It is asked for at every change. So many deadlines are kept in a heap: an outdated entry is removed
when it reaches the top, and all outdated ones when they are the greater part. With few deadlines,
as for a network with one client, there is no heap: comparing all is faster, and saves 150 bytes a
session.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

End = TypeVar("End", int, float)

_FEW: Final = 16
_SLACK: Final = 64


class Latest(Generic[End]):
    """Deadlines by name, in units of any one clock; each call takes O(log n) on average."""

    __slots__ = ("_ends", "_heap")

    def __init__(self) -> None:
        self._ends: dict[str, End] = {}
        self._heap: list[tuple[End, str]] | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    def put(self, name: str, end: End) -> None:
        """Set or move the deadline of `name`."""
        self._ends[name] = end
        if self._heap is not None:
            heappush(self._heap, (-end, name))
        entries = 0 if self._heap is None else len(self._heap)
        if entries > 2 * len(self._ends) + _SLACK or (not entries and len(self._ends) > _FEW):
            self._heap = [(-end, name) for name, end in self._ends.items()]
            heapify(self._heap)

    def drop(self, name: str) -> None:
        """Remove `name`, if it is there."""
        self._ends.pop(name, None)

    @property
    def end(self) -> End | None:
        """The latest deadline; None if there is none."""
        if self._heap is None:
            return max(self._ends.values(), default=None)
        while self._heap:
            negative, name = self._heap[0]
            if self._ends.get(name) == -negative:
                return -negative
            heappop(self._heap)
        return None
