"""The garbage collector, kept from going through what does not change.

CPython's collector goes through every object there is each time their number has grown by a quarter
(docs.python.org, module gc): with 10,000 sessions that is half a second in which nothing else
happens. Sessions leave no references in circles behind (tests/runtime/test_garbage.py), so nothing
would be found in them. What has survived the two young generations is therefore frozen: the
collector never looks at it again, and it goes, as nearly everything does, with the last reference
to it.

Should something leave circles after all, they would stay. So what is frozen is counted now and
then, and when it is more than the sessions explain, everything is gone through once.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger(namespace="envelope.collector")

# Seconds. Counting takes some 5 ms with 10,000 sessions.
COUNT_EVERY: Final = 300.0
# Objects that a session may account for; measured: 45.
SESSION: Final = 150
# Objects that may come and stay with no session: caches, and what is under way.
SLACK: Final = 50_000
_SURVIVED: Final = 1


class ICollector(Protocol):
    """What is used of the module `gc`."""

    callbacks: list[Any]

    def collect(self) -> int:
        """Go through everything that is not frozen."""

    def freeze(self) -> None:
        """Look at nothing of this any more."""

    def unfreeze(self) -> None:
        """Look at it again."""

    def get_freeze_count(self) -> int:
        """How many objects are frozen."""


class Collector:
    """Governs the process's collector between `start` and `stop`; `sessions` says how many."""

    def __init__(
        self, reactor: IReactorTime, sessions: Callable[[], int], system: ICollector = gc
    ) -> None:
        self._sessions = sessions
        self._system = system
        self._normal = 0
        self._counting = LoopingCall(self.count)
        self._counting.clock = reactor

    def start(self) -> None:
        """Everything that was needed to start stays to the end."""
        self._go_through_everything()
        self._system.callbacks.append(self._collected)
        self._counting.start(COUNT_EVERY, now=False)

    def stop(self) -> None:
        """Leave the collector as it was."""
        if self._counting.running:
            self._counting.stop()
            self._system.callbacks.remove(self._collected)
            self._system.unfreeze()

    def count(self) -> None:
        """Look for circles if there is more than the sessions explain."""
        explained = self._normal + SESSION * self._sessions() + SLACK
        if self._system.get_freeze_count() > explained:
            self._system.unfreeze()
            self._go_through_everything()
            _log.info("went through all objects; {count} stay", count=self._normal)

    def _go_through_everything(self) -> None:
        self._system.collect()
        self._system.freeze()
        self._normal = self._system.get_freeze_count()

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _SURVIVED:
            self._system.freeze()
