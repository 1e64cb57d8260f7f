"""The tables of hostile bytes, sent to the real service over real sockets, plain and TLS.

Each gets one well-formed refusal or a close. Nothing that was sent is returned, no connection and
no socket is left, and the log has neither a traceback nor anything that a client sent.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import pytest

from tests.end_to_end.serviceprocess import ServiceProcess, describe, until_end
from tests.front.test_attacks import ATTACKS, CANARY, WELCOME
from tests.front.test_websocket import VIOLATIONS
from tests.support.frontfakes import HELLO, UPGRADE, close_frame, frame, request

# The most bytes that the service reads before it answers. A close with unread bytes left is a
# reset, which may overtake the answer (RFC 9112 section 9.6).
_ONE_READ = 65536
PLAIN, PROXIED = 0, 1
HEADER = b"PROXY TCP4 203.0.113.7 192.0.2.1 50000 8880\r\n"


@pytest.fixture(scope="module", params=["plain", "tls"])
def running(request: Any, tmp_path_factory: Any) -> Iterator[ServiceProcess]:
    """The service, with a second listener for a proxy."""
    places = ("127.0.0.1:0", "haproxy:tcp:0:interface=127.0.0.1")
    with ServiceProcess(
        tmp_path_factory.mktemp(request.param), "--request-timeout=3s", "--max-clients=3",
        listen=places, tls=request.param == "tls",
    ) as running:
        yield running
        log = "\n".join(running.stop())
    for word in ("Traceback", "Unhandled", CANARY.decode(), "eyJ", "access_token"):
        assert word not in log, log


@pytest.fixture(autouse=True)
def all_connections_end(running: ServiceProcess) -> Iterator[None]:
    """No connection and no socket outlives a test."""
    yield
    running.wait_until_idle()


def with_token(running: ServiceProcess, data: bytes) -> bytes:
    """Replace the tables' `good` by a token that this service accepts."""
    return data.replace(b"access_token=good", b"access_token=" + running.token())


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_requests_are_refused_in_order(running: ServiceProcess, name: str) -> None:
    data, status = ATTACKS[name]
    answer = running.exchange(with_token(running, data))
    if answer or len(data) < _ONE_READ:
        assert describe(answer)["status"] == status
        assert {"connection", "content-length"} <= set(describe(answer)["headers"])
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert CANARY not in answer
    assert b"Set-Cookie" not in answer
    assert b"erver:" not in answer


@pytest.mark.parametrize("name", WELCOME)
def test_unusual_but_valid_requests_are_let_in(running: ServiceProcess, name: str) -> None:
    answer = running.exchange(with_token(running, WELCOME[name]) + close_frame(1000))
    assert describe(answer)["status"] == 101


def frames_after(running: ServiceProcess, data: bytes) -> bytes:
    """Send a request and these frames; returns what follows the 101."""
    answer = describe(running.exchange(with_token(running, HELLO) + data))
    assert answer["status"] == 101
    return bytes(answer["body"])


@pytest.mark.parametrize("name", VIOLATIONS)
def test_broken_frames_end_the_session_with_their_code(running: ServiceProcess, name: str) -> None:
    data, code = VIOLATIONS[name]
    assert frames_after(running, data) == b"\x88\x02" + struct.pack("!H", code)


@pytest.mark.parametrize(
    "data",
    [
        frame(1, b"x", fin=False), frame(2, b"x" * 3000)[:9],
        struct.pack("!BBQ4s", 0x82, 0xFF, 2**63 - 1, b"mask") + b"x" * 1000,
        frame(1, b"\xff\xfe") + b"\0" * 1000,
    ],
    ids=["fragment", "half a frame", "a claim of 8 EB", "bad UTF-8"],
)
def test_data_ends_the_session_before_it_is_whole(running: ServiceProcess, data: bytes) -> None:
    assert frames_after(running, data) == b"\x88\x06\x03\xebdata"


def test_a_flood_of_pings_is_bounded_and_ended(running: ServiceProcess) -> None:
    received = frames_after(running, frame(9, b"p" * 10) * 300)
    assert received.count(b"\x8a\x0a" + b"p" * 10) <= 100
    assert received.endswith(b"\x88\x02" + struct.pack("!H", 1008))


def test_pings_whose_pongs_are_not_read_do_not_pile_up(running: ServiceProcess) -> None:
    """The service stops reading, so the peer can send only what the kernel's buffers hold."""
    with closing(running.open_stream()) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stream.sendall(with_token(running, HELLO))
        assert b" 101 " in stream.recv(20)
        ping = frame(9, b"p" * 125)
        with suppress(OSError, ssl.SSLError):
            for _ in range(10_000):
                stream.sendall(ping)
    running.wait_until_idle()


RAW: dict[str, bytes] = {
    "a plain request": request(b"GET / HTTP/1.1"),
    "SSL 2": b"\x80\x2e\x01\x00\x02" + b"\0" * 41,
    "an empty handshake record": b"\x16\x03\x01\x00\x00",
    "a record beyond any size": b"\x16\x03\x01\xff\xff" + b"\0" * 70000,
    "application data first": b"\x17\x03\x03\x00\x05hello",
    "an alert first": b"\x15\x03\x03\x00\x02\x02\x28",
    "a heartbeat first": b"\x18\x03\x03\x00\x03\x01\x40\x00",
    "a hello of nonsense": b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\xff\xff\xff\xff",
    "TLS 1.0": (
        b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x01" + b"r" * 32 + b"\0\0\4\0\x2f\0\x35\1\0"
    ),
    "zeros": b"\0" * 5000,
    "a PROXY line": HEADER + b"\r\n",
    "a WebSocket frame": frame(1, b"x" * 100),
}


@pytest.mark.parametrize("name", RAW)
def test_a_connection_that_does_not_speak_tls_is_closed(running: ServiceProcess, name: str) -> None:
    """On the plain port the same bytes are not HTTP, and are answered with 400."""
    with closing(running.connect()) as stream:
        with suppress(OSError):
            stream.sendall(RAW[name])
        received = until_end(stream)
    if running.tls:
        assert b"HTTP" not in received
        assert len(received) < 64, "more than one TLS alert"
    elif received:
        assert describe(received)["status"] in (400, 404)


def test_silent_slow_and_half_closed_peers_are_cut_off(running: ServiceProcess) -> None:
    """All at the same time, so that the test waits for one time-out only."""
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="x").do_handshake()
    start = hello.read()
    before = running.dropped()["timeout"]
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(running.connect())) for _ in range(3)]
        streams += [stack.enter_context(closing(running.open_stream())) for _ in range(2)]
        if running.tls:
            streams[1].sendall(start[:50])
            streams[2].sendall(start)
        else:
            streams[1].sendall(b"GET")
            streams[2].sendall(HELLO[:-2])
        streams[4].sendall(HELLO[:-2])
        received = [until_end(stream) for stream in streams]
    assert not any(b"HTTP" in one for one in received)
    assert running.dropped()["timeout"] == before + 5


def test_peers_that_never_close_are_cut_off(running: ServiceProcess) -> None:
    """They read the answer, do not answer TLS's close_notify, and keep the socket open."""
    before = running.dropped()["lingering"]
    with closing(running.connect()) as stream:
        if not running.tls:
            stream.sendall(request(b"GET / HTTP/1.1"))
            assert b" 404 " in until_end(stream)
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        tls = context.wrap_bio(incoming, outgoing)
        shaken = False
        while not shaken:
            try:
                tls.do_handshake()
                shaken = True
            except ssl.SSLWantReadError:
                stream.sendall(outgoing.read())
                incoming.write(stream.recv(65536))
        tls.write(request(b"GET / HTTP/1.1"))
        stream.sendall(outgoing.read())
        with suppress(ConnectionResetError):
            while stream.recv(65536):
                pass
    assert running.dropped()["lingering"] == before + 1


# -- behind a proxy ------------------------------------------------------------------------

LOST = {
    "no header": b"",
    "HTTP before it": b"GET / HTTP/1.1\r\n",
    "a port of words": b"PROXY TCP4 203.0.113.7 192.0.2.1 one 8880\r\n",
    "a name for an address": b"PROXY TCP4 evil.example 192.0.2.1 1 8880\r\n",
    "a line without end": b"PROXY TCP4 " + b"1" * 200,
    "version 2, too short": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04abcd",
    "version 2 of 64 kB": b"\r\n\r\n\0\r\nQUIT\n\x20\x00\xff\xff" + b"\0" * 5000,
}


@pytest.mark.parametrize("name", LOST)
def test_without_a_valid_proxy_header_there_is_no_answer(
    running: ServiceProcess, name: str
) -> None:
    before = running.dropped()["proxy"]
    with closing(running.connect(PROXIED)) as stream:
        with suppress(OSError):
            stream.sendall(LOST[name] + with_token(running, HELLO))
        assert until_end(stream) == b""
    assert running.dropped()["proxy"] == before + 1


@pytest.mark.parametrize(
    "header",
    [HEADER, b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"],
    ids=["TCP4", "UNKNOWN", "LOCAL"],
)
def test_answers_behind_a_proxy_header_are_the_same_as_without(
    running: ServiceProcess, header: bytes
) -> None:
    """Headers without an address are included: no rules are managed here, so none is needed."""
    assert describe(running.exchange(UPGRADE, PROXIED, header))["status"] == 400
    hello = with_token(running, HELLO) + close_frame(1000)
    assert describe(running.exchange(hello, PROXIED, header))["status"] == 101
