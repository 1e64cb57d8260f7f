"""Child processes with a time limit, so that none can hang the service or be left behind.

A child gets a clean environment, unless another one is given, and is started by its absolute path;
no shell is involved.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IReactorFDSet, IReactorProcess, IReactorTime
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from envelope.firewall import FirewallError
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.runtime.timers import Timer
from envelope.runtime.transports import kill_child, output_of_child
from envelope.text import printable

# Where tools are looked for when the search path does not have them.
_SEARCH_PATH: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"
CLEAN_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
# Bytes. More than this from a tool is a fault; 10,000 grants are 1.2 MB of rules.
OUTPUT_LIMIT: Final = 64 << 20
# Seconds. A tool may write line by line (nft: 260 times for 1,000 grants), and each write would
# cost a turn of the reactor: after a short read we wait this long until more has gathered. A read
# of `_PLENTY` bytes, all that Twisted reads at once, means that there is more already.
GATHER_FOR: Final = 0.004
_PLENTY: Final = 8192


class IProcessReactor(IReactorFDSet, IReactorProcess, IReactorTime):
    """What is needed of a reactor: descriptors, processes and time."""


def one_line(text: bytes) -> str:
    """The line of a tool's errors that says what was wrong, else its last line; printable."""
    lines = [line.strip() for line in text.decode("utf-8", "replace").splitlines()]
    said = [line for line in lines if line and not line.startswith(("Try `", "Error occurred"))]
    # nft says first what is wrong, and then shows where.
    first = next((line for line in said if "Error: " in line), None)
    if first is not None:
        return printable(first.partition("Error: ")[2])[:200]
    last = said[-1].partition("-restore: ") if said else ("", "", "")
    return printable(last[2] or last[0])[:200]


def how_it_ended(reason: Failure) -> str:
    """A child's exit status or signal in words; `reason` is that of `processEnded`."""
    ended: Any = reason.value
    if ended.signal is not None:
        return f"ended by signal {ended.signal}"
    return f"ended with exit status {ended.exitCode}"


def require_executable(path: Path) -> None:
    """Raise `ToolFailed` when there is nothing to run at `path`."""
    if not os.access(path, os.X_OK) or path.is_dir():
        raise ToolFailed(f"{path} is not there or cannot be run")


@dataclass(frozen=True, slots=True)
class Finished:
    """What a child process printed that ended with status 0."""

    output: bytes
    errors: bytes


class _Run(ProcessProtocol):
    def __init__(self, reactor: IReactorTime, name: str, stdin: bytes) -> None:
        self.name = name
        self.stdin = stdin
        self.output: list[bytes] = []
        self.errors: list[bytes] = []
        self.size = 0
        self.timer = Timer(reactor)
        self.gathering = Timer(reactor)
        self.finished: Deferred[Finished] = Deferred(lambda _: self.kill())

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.stdin:
            self.transport.write(self.stdin)
        self.transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        (self.output if childFD == 1 else self.errors).append(data)
        self.size += len(data)
        if self.size > OUTPUT_LIMIT:
            self.give_up(ToolFailed(f"{self.name} printed more than {OUTPUT_LIMIT} bytes"))
        elif childFD == 1 and len(data) < _PLENTY and self.transport is not None:
            pipe = output_of_child(self.transport, childFD)
            pipe.pauseProducing()
            self.gathering.start(GATHER_FOR, pipe.resumeProducing)

    def processEnded(self, reason: Failure) -> None:
        self.timer.stop()
        self.gathering.stop()
        if self.finished.called:
            return
        output, errors = b"".join(self.output), b"".join(self.errors)
        if reason.check(ProcessDone):
            self.finished.callback(Finished(output, errors))
        else:
            said = one_line(errors) or how_it_ended(reason)
            self.finished.errback(ToolFailed(f"{self.name}: {said}", output))

    def kill(self) -> None:
        if self.transport is not None:
            kill_child(self.transport)

    def give_up(self, why: ToolFailed) -> None:
        self.kill()
        if not self.finished.called:
            self.finished.errback(why)


def run(
    reactor: IProcessReactor, argv: tuple[str, ...], timeout: float, stdin: bytes = b"",
    environ: Mapping[str, str] = CLEAN_ENVIRONMENT,
) -> Deferred[Finished]:
    """Run `argv` to its end, for at most `timeout` seconds, with `stdin` as its input.

    Fails with `ToolFailed` or `ToolTimeout`. Cancelling kills the child.
    """
    name = Path(argv[0]).name
    protocol = _Run(reactor, name, stdin)
    try:
        require_executable(Path(argv[0]))
        # /dev/null instead of a pipe, which costs two turns of the reactor to close.
        with open(os.devnull, "rb") as nothing:
            source = "w" if stdin else nothing.fileno()
            reactor.spawnProcess(
                protocol, argv[0], argv, env=dict(environ),
                childFDs={0: source, 1: "r", 2: "r"},
            )
    except (ToolFailed, OSError) as error:
        protocol.finished.errback(ToolFailed(str(error)))
        return protocol.finished
    if not protocol.finished.called:
        late = ToolTimeout(f"{name} did not answer within {timeout:g} s")
        protocol.timer.start(timeout, protocol.give_up, late)
    return protocol.finished


def find_tool(name: str, chosen: Path | None, search_path: str) -> Path:
    """The absolute path of a tool: the operator's, or the first on PATH and in /usr/sbin:/sbin."""
    found = shutil.which(str(chosen or name), path=f"{search_path}:{_SEARCH_PATH}")
    if found is None:
        raise FirewallError(f"{chosen or name} is not installed, or cannot be run")
    return Path(found).absolute()
