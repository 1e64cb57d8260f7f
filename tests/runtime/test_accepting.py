"""Accepting, with a fake port and a fake socket."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher

from envelope.runtime.accepting import BATCH, REST, SILENCE, accept_carefully


class Listening:
    """A listening socket; `waiting` clients, or an error."""

    def __init__(self) -> None:
        self.waiting = 0
        self.error: int | None = None
        self.closed = False

    def accept(self) -> tuple[str, str]:
        if self.error is not None:
            raise OSError(self.error, "it failed")
        if not self.waiting:
            raise BlockingIOError(errno.EAGAIN, "nobody")
        self.waiting -= 1
        return "client", "address"

    def fileno(self) -> int:
        return 99

    def close(self) -> None:
        self.closed = True


class Port:
    """The part of a Twisted port that is used."""

    connected = True
    disconnecting = False

    def __init__(self) -> None:
        self.socket: Any = Listening()
        self.real = self.socket
        self.reading = True
        self.clock = Clock()
        self.asked = 0
        self.room = False
        accept_carefully(self, self.clock, self.make_room)

    def make_room(self) -> bool:
        self.asked += 1
        return self.room

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True

    def turn(self) -> int:
        """One turn of the reactor: accept until nothing is left; return how many there were."""
        self.clock.advance(0)
        accepted = 0
        while True:
            try:
                self.socket.accept()
            except BlockingIOError:
                return accepted
            accepted += 1


@pytest.fixture
def logged() -> Any:
    """The log lines above debug."""
    lines: list[str] = []

    def observe(event: Any) -> None:
        if event["log_level"] > LogLevel.debug:
            lines.append(event["log_format"].format(**event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_a_turn_accepts_a_batch_at_most() -> None:
    port = Port()
    port.real.waiting = 2 * BATCH + 3
    assert [port.turn() for _ in range(4)] == [BATCH, BATCH, 3, 0]
    assert not port.clock.getDelayedCalls()
    assert port.reading
    assert port.asked == 0


def test_other_attributes_are_the_sockets_own() -> None:
    assert Port().socket.fileno() == 99


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@pytest.mark.parametrize("room", [True, False])
def test_without_descriptors_it_drops_one_or_backs_off(
    error: int, room: bool, logged: list[str]
) -> None:
    port = Port()
    port.real.error, port.room = error, room
    assert port.turn() == 0
    assert (port.reading, port.asked) == (False, 1)
    port.real.error = None
    port.real.waiting = 1
    port.clock.advance(0)
    assert port.reading is room
    port.clock.advance(REST)
    assert port.reading
    assert port.turn() == 1
    port.socket.close()
    assert not port.clock.getDelayedCalls()
    assert logged == [
        "no connection can be accepted now: it failed; raise the limit of open files, or lower "
        "--max-connections"
    ]


def test_exhaustion_is_logged_once_a_minute(logged: list[str]) -> None:
    port = Port()
    port.real.error = errno.EMFILE
    for _ in range(int(SILENCE / REST) - 1):
        port.turn()
        port.clock.advance(REST)
    assert len(logged) == 1
    port.clock.advance(1)
    port.turn()
    assert len(logged) == 2
    port.socket.close()


@pytest.mark.parametrize("error", [errno.ECONNABORTED, errno.EPROTO, errno.ENETUNREACH])
def test_errors_of_one_connection_are_ignored(error: int, logged: list[str]) -> None:
    port = Port()
    port.real.error = error
    assert port.turn() == 0
    assert port.reading
    assert logged == []


def test_other_errors_are_not_hidden() -> None:
    port = Port()
    port.real.error = errno.EBADF
    with pytest.raises(OSError, match="it failed"):
        port.turn()


def test_a_closed_port_has_no_timer() -> None:
    port = Port()
    port.real.error = errno.EMFILE
    port.turn()
    port.socket.close()
    assert port.real.closed
    assert not port.clock.getDelayedCalls()


@pytest.mark.parametrize("state", [(False, False), (True, True)])
def test_a_port_that_is_closing_does_not_read_again(state: tuple[bool, bool]) -> None:
    port = Port()
    port.real.error = errno.EMFILE
    port.turn()
    port.connected, port.disconnecting = state
    port.clock.advance(REST)
    assert not port.reading
    port.socket.close()
