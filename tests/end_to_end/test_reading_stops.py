"""A client floods when nothing that it sends can matter any more: the service stops reading."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.end_to_end.serviceprocess import ServiceProcess
from tests.support.frontfakes import HELLO, close_frame, frame, request

pytestmark = pytest.mark.process

# Bytes that the kernels of both sides may hold, and the service may read, after the end. Without a
# limit the service takes in some 30 MB within the two seconds until it drops the connection.
MOST = 4 << 20
FLOOD = frame(9, b"p" * 125) * 500
# The head of a data frame of 8 EB, and as much of its payload as is sent.
ENDLESS = b"\x82\xff\x7f" + b"\xff" * 7 + b"mask"


@pytest.fixture(scope="module", params=["plain", "tls"])
def running(request: Any, tmp_path_factory: Any) -> Iterator[ServiceProcess]:
    """The service; sessions end after a second."""
    with ServiceProcess(
        tmp_path_factory.mktemp(request.param), "--max-duration=1s", "--max-clients=9",
        listen=("127.0.0.1:0",), tls=request.param == "tls",
    ) as running:
        yield running


def _hello(running: ServiceProcess) -> bytes:
    return HELLO.replace(b"access_token=good", b"access_token=" + running.token())


def _refused(stream: socket.socket, _: ServiceProcess) -> bytes:
    stream.sendall(request(b"GET / HTTP/1.1"))
    assert stream.recv(12) == b"HTTP/1.1 404"
    return FLOOD


def _open(stream: socket.socket, running: ServiceProcess) -> None:
    stream.sendall(_hello(running))
    assert stream.recv(12) == b"HTTP/1.1 101"


def _broken(stream: socket.socket, running: ServiceProcess) -> bytes:
    _open(stream, running)
    stream.sendall(frame(9) * 101)
    return FLOOD


def _closed(stream: socket.socket, running: ServiceProcess) -> bytes:
    _open(stream, running)
    stream.sendall(close_frame(1000))
    return FLOOD


def _data_sent(stream: socket.socket, running: ServiceProcess) -> bytes:
    _open(stream, running)
    stream.sendall(ENDLESS)
    return b"x" * 65536


def _deadline_passed(stream: socket.socket, running: ServiceProcess) -> bytes:
    _open(stream, running)
    received = b""
    while struct.pack("!H", 4000) not in received:
        received += stream.recv(1000)
    stream.sendall(ENDLESS)
    return b"x" * 65536


STATES: dict[str, Callable[[socket.socket, ServiceProcess], bytes]] = {
    "refused": _refused, "protocol broken": _broken, "close frame sent": _closed,
    "data sent": _data_sent, "deadline passed": _deadline_passed,
}


@pytest.mark.parametrize("state", STATES)
def test_a_flood_after_the_end_is_not_taken_in(running: ServiceProcess, state: str) -> None:
    """And the connection is dropped in time, although the peer's close is not read."""
    with closing(running.open_stream()) as stream:
        piece = STATES[state](stream, running)
        ended = time.monotonic()
        sent = 0
        try:
            while sent < MOST:
                sent += stream.send(piece)
        except (OSError, ssl.SSLError):
            pass
        assert sent < MOST
        assert time.monotonic() - ended < 5
    running.wait_until_idle()


def test_a_client_that_closes_is_not_dropped(running: ServiceProcess) -> None:
    """TLS's close_notify is still read after a close frame and as much as a client has sent."""
    before = running.dropped()["lingering"]
    with closing(running.open_stream()) as stream:
        _open(stream, running)
        stream.sendall(frame(2, b"x" * 60_000))
        received = b""
        while more := stream.recv(1000):
            received += more
        assert received.endswith(b"\x88\x06\x03\xebdata")
    running.wait_until_idle()
    assert running.dropped()["lingering"] == before
