"""Child processes of a process with many descriptors: what they get, and what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from envelope.firewall.errors import ToolFailed
from envelope.firewall.process import run
from envelope.runtime.reactor import inheritable_fds, spawn_cheaply
from tests.support.callcounter import CallCounter

pytestmark = pytest.mark.process


@pytest.fixture
def inheritable() -> Iterator[int]:
    """A descriptor that children would get."""
    with open(os.devnull) as file:
        os.set_inheritable(file.fileno(), True)
        yield file.fileno()


@pytest.fixture
def cheaply(inheritable: int) -> Iterator[None]:
    """The reactor starts children as the service's does."""
    spawn_cheaply(reactor)
    yield
    del reactor.spawnProcess


def test_only_inheritable_descriptors_are_found(inheritable: int) -> None:
    with open(os.devnull) as closed_in_children:
        found = inheritable_fds()
        assert inheritable in found
        assert closed_in_children.fileno() not in found
        assert not {0, 1, 2} & set(found)


@pytest.mark.usefixtures("cheaply")
@pytest_twisted.inlineCallbacks
def test_a_child_gets_its_three_pipes_and_nothing_else() -> Any:
    with open(os.devnull):
        done = yield run(reactor, ("/bin/ls", "/proc/self/fd"), 10.0)
    # The last one is the folder that ls reads.
    assert done.output.split() == [b"0", b"1", b"2", b"3"]


@pytest_twisted.inlineCallbacks
def test_a_descriptor_closed_meanwhile_is_skipped(inheritable: int) -> Any:
    number = os.dup(inheritable)
    os.set_inheritable(number, True)
    spawn_cheaply(reactor)
    os.close(number)
    try:
        done = yield run(reactor, ("/bin/ls", "/proc/self/fd"), 10.0)
    finally:
        del reactor.spawnProcess
    assert done.output.split() == [b"0", b"1", b"2", b"3"]


@pytest.mark.usefixtures("cheaply")
@pytest_twisted.inlineCallbacks
def test_no_signal_is_ignored_in_a_child() -> Any:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        done = yield run(reactor, ("/bin/grep", "SigIgn", "/proc/self/status"), 10.0)
    finally:
        signal.signal(signal.SIGUSR1, before)
    # glibc keeps two for itself (nptl(7)).
    ignored = int(done.output.split()[1], 16)
    assert [each for each in signal.valid_signals() if ignored >> each - 1 & 1] == []


@pytest.mark.usefixtures("cheaply")
@pytest_twisted.inlineCallbacks
def test_input_output_and_exit_status_arrive() -> Any:
    done = yield run(reactor, ("/bin/cat",), 10.0, b"to and fro")
    assert done.output == b"to and fro"
    with pytest.raises(ToolFailed, match="nothing-there"):
        yield run(reactor, ("/bin/cat", "/nothing-there"), 10.0)


@pytest.mark.usefixtures("cheaply")
@pytest_twisted.inlineCallbacks
def test_a_program_that_cannot_be_run_leaves_no_pipe(tmp_path: Any) -> Any:
    script = tmp_path / "tool"
    script.write_text("#!/nothing-there\n")
    script.chmod(0o755)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ToolFailed):
        yield run(reactor, (str(script),), 10.0)
    assert os.listdir("/proc/self/fd") == before


class Waiting(ProcessProtocol):
    """A program that does nothing until it is told to end."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback(None)


@pytest.mark.usefixtures("cheaply")
@pytest_twisted.inlineCallbacks
def test_a_start_costs_the_same_among_many_descriptors() -> Any:
    counted = []
    for number in (1, 1, 300):
        child = Waiting()
        with ExitStack() as files:
            for _ in range(number):
                files.enter_context(open(os.devnull))
            with CallCounter() as done:
                reactor.spawnProcess(child, "/bin/cat", ("cat",), env={})
        child.transport.closeStdin()
        yield child.ended
        counted.append(done.calls + sum(done.builtin.values()))
    # The first is aside: Twisted looks around.
    assert counted[1] == counted[2]


CLOSED = """
import os, sys
from twisted.internet import reactor
from envelope.firewall.process import run
from envelope.runtime.reactor import spawn_cheaply
os.close(0)
spawn_cheaply(reactor)
def end(done):
    os.write(1, getattr(done, "output", repr(done).encode()))
    reactor.stop()
reactor.callWhenRunning(lambda: run(reactor, ("/bin/cat",), 10.0, b"all there").addBoth(end))
reactor.run()
"""


def test_a_service_without_standard_input_can_start_children() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, timeout=60)
    assert done.stdout == b"all there", done.stderr


def test_a_twisted_without_the_names_starts_children_in_its_own_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Process, "processReaderFactory")
    patched = Anything()
    spawn_cheaply(patched)
    assert not hasattr(patched, "spawnProcess")


class Anything:
    """A reactor of which nothing is used."""
