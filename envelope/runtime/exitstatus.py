"""What the process says to its parent when it ends.

twistd exits 0 whatever a service's start came to, and dies of SIGTERM by SIGTERM. An operator's
scripts need the opposite: 0 after a clean stop, 1 after a failed start or an unclean stop.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.error import ReactorNotRunning

from envelope.runtime.background import StartReport


def end_at_once_on_ctrl_c() -> None:
    """As long as nothing is begun, SIGINT ends the process without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def stop_cleanly_on_signals(reactor: Any, also: dict[int, Callable[[], object]]) -> list[int]:
    """Once `reactor` runs: SIGTERM and SIGINT stop it without being passed on to the process's end.

    `also` maps further signals to what they do, each called in the reactor's own turn. The list has
    the signals that have asked for the stop, from the moment on that they came.
    """
    stops = (signal.SIGTERM, signal.SIGINT)
    actions: dict[int, Callable[[], object]] = {**dict.fromkeys(stops, reactor.stop), **also}
    asked: list[int] = []

    def handle(number: int, _frame: object) -> None:
        if number in stops:
            asked.append(number)
        reactor.callFromThread(_quietly, actions[number])

    def install() -> None:
        for number in actions:
            signal.signal(number, handle)

    reactor.callWhenRunning(install)
    return asked


def _quietly(action: Callable[[], object]) -> None:
    # A second SIGTERM while stopping asks for what is being done already.
    with suppress(ReactorNotRunning):
        action()


class ExitStatus:
    """The status that the process will end with; armed once, it outlives twistd's own idea."""

    def __init__(self, report: StartReport) -> None:
        self._report = report
        self._armed = False

    def fail(self, message: str) -> None:
        """End with status 1, and say why in one line on standard error.

        In the background that leads nowhere; `report` has it for whoever waits for a start.
        """
        os.write(2, f"envelope: {message}\n".encode())
        self._report.failed(message)
        if not self._armed:
            self._armed = True
            atexit.register(self._leave)

    def _leave(self) -> None:
        # The last thing the interpreter runs: after it, the status can no longer be said.
        atexit.unregister(self._leave)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(1)
