"""Keeps the garbage collector from examining objects that live long.

CPython's collector examines all objects each time their number has grown by a quarter
(docs.python.org, module gc): with 10,000 sessions, half a second in which nothing else happens.
Sessions leave no reference cycles (tests/runtime/test_garbage.py), so it would find nothing in
them. Objects that survive the two young generations are therefore frozen: the collector does not
examine them again, and they are freed when the last reference to them goes.

Cycles that arise nevertheless would stay. So the frozen objects are counted now and then, and if
there are more than the sessions explain, all objects are examined once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger(namespace="envelope.collector")

# Seconds between two counts; a count takes some 5 ms with 10,000 sessions.
COUNT_EVERY: Final = 300.0
# Objects that one session explains; measured: 45.
PER_SESSION: Final = 150
# Objects that no session has to explain: caches, and requests in progress.
SLACK: Final = 50_000
_SURVIVED: Final = 1


class ICollector(Protocol):
    """The part of the module `gc` that is used."""

    callbacks: list[Any]

    def collect(self) -> int:
        """Examine all objects that are not frozen."""

    def freeze(self) -> None:
        """Examine no present object again."""

    def unfreeze(self) -> None:
        """Undo `freeze`."""

    def get_freeze_count(self) -> int:
        """The number of frozen objects."""


class Collector:
    """Controls the process's collector from `start` to `stop`; `sessions` returns their number."""

    def __init__(
        self, reactor: IReactorTime, sessions: Callable[[], int], system: ICollector = gc
    ) -> None:
        self._sessions = sessions
        self._system = system
        self._normal = 0
        self._counting = LoopingCall(self.count)
        self._counting.clock = reactor

    def start(self) -> None:
        """Freeze what exists; it was needed for the start and lives to the end."""
        self._collect_all()
        self._system.callbacks.append(self._collected)
        self._counting.start(COUNT_EVERY, now=False)

    def stop(self) -> None:
        """Restore the collector."""
        if self._counting.running:
            self._counting.stop()
            self._system.callbacks.remove(self._collected)
            self._system.unfreeze()

    def count(self) -> None:
        """Examine all objects if more are frozen than the sessions explain."""
        explained = self._normal + PER_SESSION * self._sessions() + SLACK
        if self._system.get_freeze_count() > explained:
            self._system.unfreeze()
            self._collect_all()
            _log.info("examined all objects for cycles; {count} remain", count=self._normal)

    def _collect_all(self) -> None:
        self._system.collect()
        self._system.freeze()
        self._normal = self._system.get_freeze_count()

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _SURVIVED:
            self._system.freeze()
