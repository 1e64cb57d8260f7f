"""The latest of many ends that come, move and go. Pure.

Asked at every change, so it may not look at all of them: a heap whose outdated entries are
dropped when they come to its top, and all at once when they are the greater part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

End = TypeVar("End", int, float)

_SLACK: Final = 64


class Latest(Generic[End]):
    """Ends by name, with the latest of them at hand; each call costs O(log n) on average."""

    __slots__ = ("_ends", "_heap")

    def __init__(self) -> None:
        self._ends: dict[str, End] = {}
        self._heap: list[tuple[End, str]] = []

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ends)

    def put(self, name: str, end: End) -> None:
        """Set or move the end of `name`."""
        self._ends[name] = end
        heappush(self._heap, (-end, name))
        if len(self._heap) > 2 * len(self._ends) + _SLACK:
            self._heap = [(-end, name) for name, end in self._ends.items()]
            heapify(self._heap)

    def drop(self, name: str) -> None:
        """Forget `name`, if it is there."""
        self._ends.pop(name, None)

    @property
    def end(self) -> End | None:
        """The latest end; None when there is none."""
        while self._heap:
            negative, name = self._heap[0]
            if self._ends.get(name) == -negative:
                return -negative
            heappop(self._heap)
        return None
