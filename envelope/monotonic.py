"""Timers that a change of the wall clock cannot move.

Twisted 26.10's `callLater` counts on `time.time()`; stepping the machine's clock by an hour would
end every session at once, or prolong it by an hour.
"""

from __future__ import annotations

import time
from typing import Any


def count_monotonically(reactor: Any) -> None:
    """Make `reactor` count its timers on `time.monotonic`; timers that are pending keep their due.

    `seconds` is `IReactorTime`'s own method, replaced on this one reactor.
    """
    if reactor.seconds is time.monotonic:
        return
    shift = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += shift
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic
