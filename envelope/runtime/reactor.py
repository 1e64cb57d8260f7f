"""The reactor, patched in two places: its clock, and how it starts child processes.

Twisted 26.10's `callLater` counts on `time.time()`; stepping the machine's clock by an hour would
end every session at once, or prolong it by an hour.

It also looks at every open descriptor before it starts a child, to tell which of them the child
must not get: 2.4 ms of the reactor's time with 1,000 clients, 22 with 10,000, at each look at the
kernel's rules. But Python opens none that a child would get (PEP 446), so that only those matter
that this process was started with.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet import main
from twisted.internet.process import Process, ProcessReader
from twisted.internet.protocol import ProcessProtocol


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


_STANDARD: Final = 3
# Bytes that a pipe holds (pipe(7)).
_PIPE: Final = 1 << 16
# Python ignores some signals, and whoever started us may have ignored others: no child does.
_DEFAULTED: Final = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class _Reader(ProcessReader):
    """Reads all that a pipe holds in one turn of the reactor; Twisted takes eight turns for it."""

    def doRead(self) -> Any:
        try:
            output = os.read(self.fd, _PIPE)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not output:
            return main.CONNECTION_DONE
        self.dataReceived(output)
        return None


def inherited() -> list[int]:
    """The descriptors open now that a child would get, but for the standard ones."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        # The one that the list itself is read from is gone again.
        with suppress(OSError):
            if int(name) >= _STANDARD and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def spawn_cheaply(reactor: Any) -> None:
    """Make `reactor` start children without a look at what is open; call it at the start.

    `spawnProcess` is `IReactorProcess`'s own method, replaced on this one reactor; it takes a
    program's absolute path, its arguments, its environment, and `childFDs`.
    """
    closed = inherited()

    class Child(Process):
        """Twisted's, but for how it begins; a Twisted that does not ask begins it as ever."""

        processReaderFactory = _Reader

        def _trySpawnInsteadOfFork(self, *asked: Any) -> bool:
            *_, executable, arguments, environment, more = asked
            pipes: dict[int, int] = more["fdmap"]
            if min(pipes.values()) < _STANDARD:
                # Somebody has closed ours: in the child they would stand in each other's way.
                return bool(super()._trySpawnInsteadOfFork(*asked))
            self.pid = os.posix_spawn(
                executable, arguments, environment,
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, ours, its) for its, ours in pipes.items()),
                    *((os.POSIX_SPAWN_CLOSE, each) for each in closed),
                ],
                setsigdef=_DEFAULTED,
            )
            self.status = -1
            return True

    def spawn(
        protocol: ProcessProtocol, executable: str, args: Sequence[str], env: Mapping[str, str],
        childFDs: Mapping[int, int | str] | None = None,
    ) -> Process:
        return Child(reactor, executable, args, env, None, protocol, childFDs=childFDs)

    reactor.spawnProcess = spawn
