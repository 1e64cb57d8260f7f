"""A tool that stays open: it is given whole transactions and asked to acknowledge each.

A process for each change costs more than the change. How a tool takes transactions and
acknowledges them is its `Dialect`: one for iptables-restore, one for nft. A tool that turns out
not to acknowledge is run once for each transaction instead.
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

from envelope.firewall.dialect import Dialect
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.kernel import ANSWER_WAIT
from envelope.firewall.process import (
    IProcessReactor,
    how_it_ended,
    one_line,
    require_executable,
    run,
)
from envelope.runtime.timers import Timer
from envelope.runtime.transports import kill_child, write_to_child

PROBE_WAIT: Final = 2.0
# Seconds that the end of a child is waited for; then it is killed.
END_WAIT: Final = 1.0
_TAIL: Final = 4096
_COMPLAINTS: Final = 16

_log = Logger(namespace="envelope.firewall")


class _Child(ProcessProtocol):
    """One running tool; `answer` is the transaction under way, until it answers or ends."""

    def __init__(self, name: str, dialect: Dialect) -> None:
        self.name = name
        self.dialect = dialect
        self.asked = 0
        self.tail = b""
        self.errors = b""
        self.complaints: list[bytes] = []
        self.ended = False
        # Whether every transaction so far was answered.
        self.in_step = True
        self.token = b""
        self.answer: Deferred[None] | None = None
        self.gone: Deferred[None] = Deferred()

    def ask(self, text: bytes, token: bytes) -> Deferred[None]:
        assert self.transport is not None
        self.asked += 1
        self.in_step = False
        self.answer, self.token, self.tail = Deferred(), token, b""
        self.complaints, self.errors = [], b""
        answer = self.answer
        # Written at once: waiting for the reactor's next turn costs each grant and each revocation
        # a twentieth of a millisecond.
        write_to_child(self.transport, text + token + b"\n")
        return answer

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD == 2:
            self.errors = (self.errors + data)[-_TAIL:]
        if childFD == self.dialect.answers_on:
            self.listen(data)

    def listen(self, data: bytes) -> None:
        *lines, tail = (self.tail + data).split(b"\n")
        self.tail = tail[-_TAIL:]
        for line in lines:
            if line == self.token:
                self.acknowledge()
            elif self.dialect.complaint and self.dialect.complaint in line:
                self.complaints = [*self.complaints, line[:_TAIL]][:_COMPLAINTS]

    def acknowledge(self) -> None:
        self.errors = b""
        if self.answer is None:
            return
        self.in_step = True
        if len(self.complaints) > self.dialect.expected:
            self.fail(ToolFailed(f"{self.name}: {one_line(self.complaints[0])}"))
        else:
            answer, self.answer = self.answer, None
            answer.callback(None)

    def fail(self, why: ToolFailed) -> None:
        if self.answer is not None:
            answer, self.answer = self.answer, None
            answer.errback(why)

    def processEnded(self, reason: Failure) -> None:
        self.ended = True
        said = one_line(self.errors) or how_it_ended(reason)
        self.fail(ToolFailed(f"{self.name}: {said}"))
        self.gone.callback(None)

    def kill(self) -> None:
        if not self.ended and self.transport is not None:
            kill_child(self.transport)


class OpenTool:
    """Applies transactions, one at a time.

    `keep_open` becomes False for good when the tool turns out not to acknowledge.
    """

    def __init__(self, reactor: IProcessReactor, tool: Path, dialect: Dialect) -> None:
        self._reactor = reactor
        self._tool = tool
        self._dialect = dialect
        self._child: _Child | None = None
        self._tokens = count(1)
        self.keep_open = True

    def probe(self) -> Deferred[None]:
        """Find out whether the tool acknowledges; fails with `ToolFailed` when it does not run."""

        def silent(failure: Failure) -> Deferred[None]:
            failure.trap(ToolFailed)
            if not failure.check(ToolTimeout) and self._dialect.open == self._dialect.once:
                return fail(failure)
            self.keep_open = False
            _log.info("{tool} does not echo: one process per transaction", tool=self._tool.name)
            # An nft without its line editor ends at once: then one run shows whether it works.
            return succeed(None) if failure.check(ToolTimeout) else self._once(b"", PROBE_WAIT)

        return self._ask(b"", PROBE_WAIT).addErrback(silent)

    def apply(self, lines: Sequence[str], patience: float = ANSWER_WAIT) -> Deferred[None]:
        """Apply `lines` as one transaction, all or none, in `patience` seconds.

        Fails with `ToolFailed`, after which only the kernel knows whether it was applied.
        """
        dialect = self._dialect
        text = dialect.text(lines, dialect.joint)
        if self.keep_open and not dialect.needs_its_own(lines, text):
            return self._ask(text, patience)
        return self.apply_once(lines, patience)

    def apply_once(self, lines: Sequence[str], patience: float = ANSWER_WAIT) -> Deferred[None]:
        """The same in a process of its own."""
        return self._once(self._dialect.text(lines, "\n"), patience)

    def stop(self) -> Deferred[None]:
        """End the child; fires when it is gone, at the latest after `END_WAIT`."""
        child, self._child = self._child, None
        if child is None:
            return succeed(None)
        if not child.ended and child.transport is not None:
            child.transport.closeStdin()
        return self._end_of(child)

    def _ask(self, text: bytes, timeout: float) -> Deferred[None]:
        lifetime = self._dialect.lifetime
        if lifetime and self._child is not None and self._child.asked >= lifetime:
            return self.stop().addCallback(lambda _: self._ask(text, timeout))
        try:
            child = self._running()
        except (ToolFailed, OSError) as error:
            return fail(ToolFailed(str(error)))
        answer = child.ask(text, f"{self._dialect.asks}{next(self._tokens)}".encode("ascii"))
        timer = Timer(self._reactor)
        timer.start(timeout, self._too_late, child, timeout)

        def in_time(_: None) -> None:
            timer.stop()

        def failed(failure: Failure) -> Deferred[None]:
            timer.stop()
            if child.in_step and not child.ended:
                return fail(failure)
            return self._discard(child).addCallback(lambda _: fail(failure))

        return answer.addCallbacks(in_time, failed)

    def _once(self, text: bytes, patience: float) -> Deferred[None]:
        argv = (str(self._tool), *self._dialect.once)
        return run(self._reactor, argv, patience, text).addCallback(lambda _: None)

    def _running(self) -> _Child:
        if self._child is None or self._child.ended:
            require_executable(self._tool)
            child = _Child(self._tool.name, self._dialect)
            argv = (str(self._tool), *self._dialect.open)
            self._reactor.spawnProcess(child, argv[0], argv, env=self._dialect.environment)
            self._child = child
        return self._child

    def _too_late(self, child: _Child, timeout: float) -> None:
        child.fail(ToolTimeout(f"{child.name} did not answer within {timeout:g} s"))

    def _discard(self, child: _Child) -> Deferred[None]:
        # A child that failed may be anywhere in its transaction: the next one gets a new child,
        # and the kernel's rules are not read while the old child might still change them.
        if self._child is child:
            self._child = None
        child.kill()
        return self._end_of(child)

    def _end_of(self, child: _Child) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        timer = Timer(self._reactor)

        def finish(_: object = None) -> None:
            timer.stop()
            if not done.called:
                child.kill()
                done.callback(None)

        timer.start(END_WAIT, finish)
        child.gone.addCallback(finish)
        return done
