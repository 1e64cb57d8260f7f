"""Two patches of the reactor: its clock, and how it starts child processes.

Twisted 26.10's `callLater` uses `time.time()`. A step of the machine's clock by an hour would end
every session at once, or prolong it by an hour. `time.monotonic()` stops while the machine is
suspended: sessions, and with them grants, would outlive their tokens by that time.

Before it starts a child, Twisted also examines every open descriptor to find those that the child
must not inherit. That takes 2.4 ms of the reactor's time with 1,000 clients, and 22 ms with 10,000,
for each child. But Python opens no descriptor that a child inherits (PEP 446), so only those
matter that this process was started with.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet import main
from twisted.internet.process import Process, ProcessReader
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from envelope.runtime.internals import require, require_parameters, require_use

_log = Logger(namespace="envelope.reactor")


# Seconds since the machine was booted, its suspends included; nobody can set them. 51 ns a call,
# where `time.monotonic` takes 38 ns.
boot_seconds: Final = functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME)

# Seconds. epoll_wait(2) counts its timeout on CLOCK_MONOTONIC, so after a suspend the reactor would
# sleep on until its next timer would have been due without the suspend.
WAKE_EVERY: Final = 5.0


def use_boot_clock(reactor: Any) -> None:
    """Make `reactor` time its calls by `boot_seconds`; pending calls keep their delay.

    `seconds` is a method of `IReactorTime`, replaced on this one reactor. Raises `RuntimeError` if
    calls do not follow it, before or after.
    """
    if reactor.seconds is boot_seconds:
        return
    delay = 3600.0
    pending = reactor.callLater(delay, int)
    shift = boot_seconds() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += shift
        call.seconds = boot_seconds
    reactor.seconds = boot_seconds
    for call in (pending, reactor.callLater(delay, int)):
        off = call.getTime() - boot_seconds() - delay
        call.cancel()
        if abs(off) > 1:
            raise RuntimeError(
                "this version of Twisted does not take its time from reactor.seconds, or its calls "
                "have no `time` and `seconds`: sessions would follow steps of the machine's clock"
            )


def wake_regularly(reactor: Any) -> None:
    """Let `reactor` look at its timers every `WAKE_EVERY` seconds, so also soon after a suspend."""
    reactor.callLater(WAKE_EVERY, wake_regularly, reactor)


_STANDARD_FDS: Final = 3
# What a pipe holds, in bytes (pipe(7)).
_PIPE_BYTES: Final = 1 << 16
# Python ignores some signals, and our parent may ignore others; a child should ignore none.
_DEFAULTED_SIGNALS: Final = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


class _Reader(ProcessReader):
    """Reads a full pipe in one turn of the reactor; Twisted's own takes eight."""

    def doRead(self) -> Any:
        try:
            output = os.read(self.fd, _PIPE_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not output:
            return main.CONNECTION_DONE
        self.dataReceived(output)
        return None


def inheritable_fds() -> list[int]:
    """The open descriptors that a child would inherit, without the three standard ones."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        # The descriptor that the folder was read with is closed again.
        with suppress(OSError):
            if int(name) >= _STANDARD_FDS and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _can_replace_fork() -> bool:
    try:
        require(Process, "processReaderFactory")
        require_use(Process._fork, "_trySpawnInsteadOfFork", "pid")
        require_parameters(
            Process._trySpawnInsteadOfFork, "executable", "args", "environment", "kwargs"
        )
    except (ImportError, AttributeError) as error:
        _log.warn("children are started in Twisted's own way, slower: {error}", error=str(error))
        return False
    return True


def spawn_cheaply(reactor: Any) -> None:
    """Make `reactor` start children without examining open descriptors; call it at the start.

    `spawnProcess` is a method of `IReactorProcess`, replaced on this one reactor. It takes a
    program's absolute path, its arguments, its environment, and `childFDs`.
    """
    if not _can_replace_fork():
        return
    closed = inheritable_fds()

    class Child(Process):
        """Twisted's own, started with posix_spawn(3)."""

        processReaderFactory = _Reader

        def _trySpawnInsteadOfFork(self, *asked: Any) -> bool:
            *_, executable, arguments, environment, more = asked
            pipes: dict[int, int] = more["fdmap"]
            if min(pipes.values()) < _STANDARD_FDS:
                # A standard descriptor of ours was closed and a pipe took its number, which
                # another pipe would overwrite in the child.
                return bool(super()._trySpawnInsteadOfFork(*asked))
            self.pid = os.posix_spawn(
                executable, arguments, environment,
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, ours, its) for its, ours in pipes.items()),
                    *((os.POSIX_SPAWN_CLOSE, each) for each in closed),
                ],
                setsigdef=_DEFAULTED_SIGNALS,
            )
            self.status = -1
            return True

    def spawn(
        protocol: ProcessProtocol, executable: str, args: Sequence[str], env: Mapping[str, str],
        childFDs: Mapping[int, int | str] | None = None,
    ) -> Process:
        return Child(reactor, executable, args, env, None, protocol, childFDs=childFDs)

    reactor.spawnProcess = spawn
