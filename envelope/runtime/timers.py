"""One timer of an object's own, which can be started, replaced and stopped at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVarTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

Arguments = TypeVarTuple("Arguments")


class Timer:
    """Calls a function once after a delay, unless it is stopped or started again before.

    Once it has fired it refers to nothing but the reactor. So it may be an attribute of the object
    whose method it calls, and leaves no reference cycle behind (see `envelope.runtime.collector`).
    """

    __slots__ = ("_call", "_reactor")

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._call: IDelayedCall | None = None

    @property
    def running(self) -> bool:
        """Whether a call is due; False already while the function runs."""
        return self._call is not None

    def start(
        self, seconds: float, then: Callable[[*Arguments], object], *arguments: *Arguments
    ) -> None:
        """Call `then(*arguments)` after `seconds` (of the reactor's clock), and only that."""
        self.stop()
        # A bound method and a second tuple would take 120 bytes more a session.
        self._call = self._reactor.callLater(seconds, self, then, *arguments)

    def stop(self) -> None:
        """Cancel the call, if one is due."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def __call__(
        self, then: Callable[[*Arguments], object], *arguments: *Arguments
    ) -> None:
        """The reactor's call."""
        self._call = None
        then(*arguments)
