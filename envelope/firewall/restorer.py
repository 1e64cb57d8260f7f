"""One long-lived iptables-restore, fed whole transactions, each acknowledged.

`iptables-restore --noflush -v` stays open between transactions and echoes a comment line once it
has committed what came before it (iptables 1.8.9, both kinds: 0.07 ms a change instead of the
50 ms that a process per rule takes). A tool that does not echo in time is run once per
transaction instead. A child killed halfway through a transaction has applied nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.firewall.process import (
    CLEAN_ENVIRONMENT,
    IProcessReactor,
    ToolFailed,
    ToolTimeout,
    one_line,
    require_executable,
    run,
)

# Seconds the tool waits for the lock that iptables-legacy shares across the machine. A grant
# must be answered within 10 s, so the tool gives up first, then we do, then the caller.
LOCK_WAIT: Final = 6
ANSWER_WAIT: Final = 7.0
PROBE_WAIT: Final = 2.0
BURIAL_WAIT: Final = 1.0

_log = Logger(namespace="envelope.firewall")


class _Child(ProcessProtocol):
    """One running tool; forgets nothing that it was asked until it answers or ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tail = b""
        self.errors = b""
        self.ended = False
        self.token = b""
        self.answer: Deferred[None] | None = None
        self.gone: Deferred[None] = Deferred()

    def ask(self, text: bytes, token: bytes) -> Deferred[None]:
        assert self.transport is not None
        self.answer, self.token, self.tail = Deferred(), token, b""
        self.transport.write(text + token + b"\n")
        return self.answer

    def outReceived(self, data: bytes) -> None:
        *lines, tail = (self.tail + data).split(b"\n")
        self.tail = tail[-4096:]
        if self.answer is not None and self.token in lines:
            answer, self.answer = self.answer, None
            answer.callback(None)

    def errReceived(self, data: bytes) -> None:
        self.errors = (self.errors + data)[-4096:]

    def fail(self, why: ToolFailed) -> None:
        if self.answer is not None:
            answer, self.answer = self.answer, None
            answer.errback(why)

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        said = one_line(self.errors) or reason.getErrorMessage()
        self.fail(ToolFailed(f"{self.name}: {said}"))
        self.gone.callback(None)

    def kill(self) -> None:
        if not self.ended and self.transport is not None:
            self.transport.signalProcess("KILL")
            # The pipes may be held open by a grandchild, which would keep us waiting for it.
            self.transport.loseConnection()


class Restorer:
    """Applies transactions to one family's filter table; one at a time.

    `keep_open` turns False for good when the tool turns out not to echo.
    """

    def __init__(self, reactor: IProcessReactor, tool: Path) -> None:
        self._reactor = reactor
        self._argv = (str(tool), "--noflush", "-v", "-w", str(LOCK_WAIT))
        self._tool = tool
        self._child: _Child | None = None
        self._tokens = count(1)
        self.keep_open = True
        self.started = 0

    def probe(self) -> Deferred[None]:
        """Find out whether the tool echoes; fails with `ToolFailed` when it does not even run."""

        def silent(failure: Failure) -> None:
            failure.trap(ToolTimeout)
            self.keep_open = False
            _log.info("{tool} does not echo: one process per transaction", tool=self._tool.name)

        return self._ask(b"", PROBE_WAIT).addErrback(silent)

    def apply(self, lines: Sequence[str], patience: float = ANSWER_WAIT) -> Deferred[None]:
        """Apply `lines` as one transaction of the filter table, all or none, in `patience` seconds.

        Fails with `ToolFailed`, after which only the kernel knows whether it was applied.
        """
        text = "\n".join(("*filter", *lines, "COMMIT", "")).encode("ascii")
        if self.keep_open:
            return self._ask(text, patience)
        self.started += 1
        once = run(self._reactor, self._argv, patience, text)
        return once.addCallback(lambda _: None)

    def stop(self) -> Deferred[None]:
        """End the child; fires when it is gone, at the latest after `BURIAL_WAIT`."""
        child, self._child = self._child, None
        if child is None:
            return succeed(None)
        if not child.ended and child.transport is not None:
            child.transport.closeStdin()
        return self._buried(child)

    def _ask(self, text: bytes, timeout: float) -> Deferred[None]:
        try:
            child = self._running()
        except (ToolFailed, OSError) as error:
            return fail(ToolFailed(str(error)))
        answer = child.ask(text, b"#%d" % next(self._tokens))
        timer = self._reactor.callLater(timeout, self._too_late, child, timeout)

        def in_time(_: None) -> None:
            timer.cancel()

        def failed(failure: Failure) -> Deferred[None]:
            if timer.active():
                timer.cancel()
            return self._discard(child).addCallback(lambda _: fail(failure))

        return answer.addCallbacks(in_time, failed)

    def _running(self) -> _Child:
        if self._child is None or self._child.ended:
            require_executable(self._tool)
            self._child = child = _Child(self._tool.name)
            self.started += 1
            self._reactor.spawnProcess(child, self._argv[0], self._argv, env=CLEAN_ENVIRONMENT)
        return self._child

    def _too_late(self, child: _Child, timeout: float) -> None:
        child.fail(ToolTimeout(f"{child.name} did not answer within {timeout:g} s"))

    def _discard(self, child: _Child) -> Deferred[None]:
        # A child that failed may be halfway through anything: the next transaction gets a new
        # one, and nobody reads the kernel's rules while the old one might still change them.
        if self._child is child:
            self._child = None
        child.kill()
        return self._buried(child)

    def _buried(self, child: _Child) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def bury(_: object = None) -> None:
            if timer.active():
                timer.cancel()
            if not done.called:
                child.kill()
                done.callback(None)

        timer = self._reactor.callLater(BURIAL_WAIT, bury)
        child.gone.addCallback(bury)
        return done
