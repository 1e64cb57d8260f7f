"""A table of hostile bytes: each is answered with a 4xx or disconnected, in order.

Whatever is sent: nothing raises, nothing above debug is logged, nothing that was sent comes back,
nobody is let in, at most one answer goes out, and no timer outlives the connection.
"""

from __future__ import annotations

import re
import ssl
from typing import Any

import pytest
from twisted.logger import LogLevel, globalLogPublisher

from tests.support.frontfakes import HELLO, PATH, UPGRADE, Client, FakeGate, request

CANARY = b"zXqCanaryQxz"
GET = b"GET " + PATH + b" HTTP/1.1"
HOST = b"Host: envelope.example\r\n"


def _client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def _with(*lines: bytes) -> bytes:
    """A good handshake with more header lines."""
    return request(headers=UPGRADE + b"".join(line + b"\r\n" for line in lines))


def _without(name: bytes) -> bytes:
    """A good handshake without a header."""
    lines = UPGRADE.splitlines(keepends=True)
    return request(headers=b"".join(one for one in lines if not one.startswith(name + b":")))


def _changed(name: bytes, value: bytes) -> bytes:
    """A good handshake with another value for a header."""
    return request(headers=re.sub(name + rb": [^\r]*", lambda _: name + b": " + value, UPGRADE))


# Name -> bytes and the status of the answer.
NOT_HTTP: dict[str, tuple[bytes, int]] = {
    "TLS to the plain port": (_client_hello(), 400),
    "SSL 2": (b"\x80\x2e\x01\x00\x02", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /v0/envelope/access\r\n", 400),
    "HTTP/0.9, bare": (b"GET /\n", 400),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    "SMTP": (b"EHLO " + CANARY + b"\r\n", 400),
    "SOCKS": (b"\x05\x01\x00", 400),
    "RDP": (b"\x03\x00\x00\x13\x0e\xe0\x00\x00", 400),
    "SIP": (b"OPTIONS sip:nm SIP/2.0\r\n", 400),
    "RTSP": (b"OPTIONS / RTSP/1.0\r\n\r\n", 400),
    "PROXY line": (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + HELLO, 400),
    "PROXY v2": (b"\r\n\r\n\x00\r\nQUIT\n", 400),
    "zeros": (b"\0" * 100, 400),
    "high bytes": (b"\xff" * 20 + b"\r\n", 400),
    "a WebSocket frame": (b"\x81\x85maskxxxxx\r\n", 400),
    "a response": (b"HTTP/1.1 200 OK\r\n\r\n", 400),
    "JSON": (b'{"method": "' + CANARY + b'"}\r\n', 400),
    "an empty line": (b"\r\n", 400),
    "an empty line before the request": (b"\r\n" + HELLO, 400),
    "a bare LF before the request": (b"\n" + HELLO, 400),
    "a space before the request": (b" " + HELLO, 400),
    "a byte order mark": (b"\xef\xbb\xbf" + HELLO, 400),
}

REQUEST_LINE: dict[str, tuple[bytes, int]] = {
    "no version": (request(b"GET " + PATH), 400),
    "no target": (request(b"GET HTTP/1.1"), 400),
    "empty target": (request(b"GET  HTTP/1.1"), 400),
    "two spaces": (request(b"GET  " + PATH + b" HTTP/1.1"), 400),
    "tab for space": (request(b"GET\t" + PATH + b"\tHTTP/1.1"), 400),
    "a space in the target": (request(b"GET " + PATH + b" " + CANARY + b" HTTP/1.1"), 400),
    "a space at the end": (request(GET + b" "), 400),
    "HTTP/1.2": (request(b"GET " + PATH + b" HTTP/1.2"), 400),
    "HTTP/2.0": (request(b"GET " + PATH + b" HTTP/2.0"), 400),
    "HTTP/1": (request(b"GET " + PATH + b" HTTP/1"), 400),
    "HTTP/1.10": (request(b"GET " + PATH + b" HTTP/1.10"), 400),
    "http/1.1": (request(b"GET " + PATH + b" http/1.1"), 400),
    "HTTPS/1.1": (request(b"GET " + PATH + b" HTTPS/1.1"), 400),
    "a superscript one": (request(b"GET " + PATH + b" HTTP/1.\xb9"), 400),
    "method with brackets": (request(b"G(E)T " + PATH + b" HTTP/1.1"), 400),
    "method of high bytes": (request(b"G\xc9T " + PATH + b" HTTP/1.1"), 400),
    "NUL in the target": (request(b"GET /\0" + PATH + b" HTTP/1.1"), 400),
    "UTF-8 in the target": (request(b"GET /caf\xc3\xa9 HTTP/1.1"), 400),
    "CR in the target": (request(b"GET /\r" + PATH + b" HTTP/1.1"), 400),
    "DEL in the target": (request(b"GET /\x7f HTTP/1.1"), 400),
    "absolute form of another path": (
        request(b"GET http://envelope.example/x" + PATH + b" HTTP/1.1"), 404),
    "absolute form without a host": (request(b"GET http://" + PATH + b" HTTP/1.1"), 404),
    "absolute form without a path": (
        request(b"GET http://envelope.example?access_token=good HTTP/1.1"), 404),
    "absolute form of another scheme": (
        request(b"GET ftp://envelope.example" + PATH + b" HTTP/1.1"), 404),
    "asterisk form": (request(b"OPTIONS * HTTP/1.1"), 404),
    "authority form": (request(b"CONNECT evil.example:443 HTTP/1.1"), 404),
    "a relative path": (request(b"GET v0/envelope/access HTTP/1.1"), 404),
    "two slashes": (request(b"GET /" + PATH + b" HTTP/1.1"), 404),
    "two slashes and a host": (request(b"GET //evil" + PATH + b" HTTP/1.1"), 404),
    "a slash at the end": (request(b"GET /v0/envelope/access/?access_token=good HTTP/1.1"), 404),
    "an encoded slash": (request(b"GET /v0/envelope%2faccess?access_token=good HTTP/1.1"), 404),
    "an encoded letter": (request(b"GET /v0/envelope/acces%73?access_token=good HTTP/1.1"), 404),
    "dots": (request(b"GET /v0/x/../envelope/access?access_token=good HTTP/1.1"), 404),
    "capitals": (request(b"GET /V0/envelope/access?access_token=good HTTP/1.1"), 404),
    "a parameter of the path": (request(b"GET /v0/envelope/access;x?access_token=good HTTP/1.1"),
                                404),
    "an encoded question mark": (request(b"GET /v0/envelope/access%3Faccess_token=good HTTP/1.1"),
                                 404),
    "a fragment": (request(b"GET /v0/envelope/access#?access_token=good HTTP/1.1"), 404),
    "a backslash": (request(b"GET /v0\\envelope\\access?access_token=good HTTP/1.1"), 404),
    "a dot": (request(b"GET /v0/./envelope/access?access_token=good HTTP/1.1"), 404),
    "dots at the start": (request(b"GET /../v0/envelope/access?access_token=good HTTP/1.1"), 404),
    "encoded dots": (request(b"GET /v0/%2e%2e/v0/envelope/access?access_token=good HTTP/1.1"), 404),
    "an encoded NUL": (request(b"GET /v0/envelope/access%00?access_token=good HTTP/1.1"), 404),
    "an encoded line end": (
        request(b"GET /v0/envelope/access%0d%0a?access_token=good HTTP/1.1"), 404),
    "an overlong slash": (request(b"GET /v0%c0%afenvelope/access?access_token=good HTTP/1.1"), 404),
    "encoded twice": (request(b"GET /v0%252fenvelope%252faccess?access_token=good HTTP/1.1"), 404),
    "an encoded first slash": (
        request(b"GET %2fv0/envelope/access?access_token=good HTTP/1.1"), 404),
    "two slashes inside": (request(b"GET /v0//envelope/access?access_token=good HTTP/1.1"), 404),
    "half an escape": (request(b"GET /v0/envelope/access%?access_token=good HTTP/1.1"), 404),
    "a path in quotes": (request(b"GET /v0/envelope/access'\"?access_token=good HTTP/1.1"), 404),
    "a user before the path": (
        request(b"GET /x@v0/envelope/access?access_token=good HTTP/1.1"), 404),
    "markup in the path": (request(b"GET /<script>" + CANARY + b"</script> HTTP/1.1"), 404),
}

HEADERS: dict[str, tuple[bytes, int]] = {
    "no Host": (_without(b"Host"), 400),
    "two Hosts": (_with(b"Host: other"), 400),
    "the same Host twice": (_with(b"Host: envelope.example"), 400),
    "Host with a space": (_changed(b"Host", b"a b"), 400),
    "Host with a path": (_changed(b"Host", b"a/b"), 400),
    "Host with a user": (_changed(b"Host", b"a@b"), 400),
    "Host list": (_changed(b"Host", b"a, b"), 400),
    "a folded line": (_with(b"X: 1", b" folded"), 400),
    "a line folded with a tab": (_with(b"X: 1", b"\tfolded"), 400),
    "a folded line at the start": (request(headers=b" x: y\r\n" + UPGRADE), 400),
    "a line of blanks": (_with(b"   "), 400),
    "bare LF everywhere": (HELLO.replace(b"\r\n", b"\n"), 400),
    "one bare LF": (HELLO.replace(b"\r\n", b"\n", 1), 400),
    "a bare LF in a value": (_with(b"X: 1\nY: 2"), 400),
    "the last empty line bare": (HELLO[:-2] + b"\n", 400),
    "a bare CR in a value": (_with(b"X: 1\rY: 2"), 400),
    "bare CR everywhere": (HELLO.replace(b"\r\n", b"\r") + b"\r\n", 400),
    "two CRs": (_with(b"X: 1\r"), 400),
    "NUL in a value": (_with(b"X: \0"), 400),
    "VT in a value": (_with(b"X: a\x0bb"), 400),
    "FF in a value": (_with(b"X: a\x0cb"), 400),
    "a space before the colon": (_with(b"X : 1"), 400),
    "a tab before the colon": (_with(b"X\t: 1"), 400),
    "no colon": (_with(CANARY), 400),
    "no name": (_with(b": " + CANARY), 400),
    "a name with a space": (_with(b"A B: 1"), 400),
    "a name in brackets": (_with(b"(X): 1"), 400),
    "a name of high bytes": (_with(b"\xdcber: 1"), 400),
    "NUL in a name": (_with(b"X\0Y: 1"), 400),
    "100 headers": (_with(*[b"X: 1"] * 95), 431),
    "4000 headers": (_with(*[b"X: 1"] * 4000), 431),
    "4000 empty ones": (_with(*[b"a:"] * 4000), 431),
    "a header of 16 kB": (_with(b"X: " + b"x" * 16384), 431),
    "a target of 16 kB": (request(b"GET /" + b"x" * 16384 + b" HTTP/1.1"), 431),
    "a method of 17 kB": (b"G" * 17000, 431),
    "a header without end": (b"GET / HTTP/1.1\r\nX: " + b"x" * 200000, 431),
}

BODIES: dict[str, tuple[bytes, int]] = {
    "POST with a body": (
        request(b"POST " + PATH + b" HTTP/1.1", HOST + b"Content-Length: 3\r\n", b"abc"), 405),
    "POST of 1 TB": (
        request(b"POST " + PATH + b" HTTP/1.1", HOST + b"Content-Length: 999999999999\r\n"), 405),
    "PUT in chunks": (
        request(b"PUT " + PATH + b" HTTP/1.1", HOST + b"Transfer-Encoding: chunked\r\n",
                b"3\r\nabc\r\n0\r\n\r\n"), 405),
    "waiting for 100": (
        request(b"POST " + PATH + b" HTTP/1.1",
                HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n"), 405),
    "POST elsewhere": (request(b"POST / HTTP/1.1", HOST + b"Content-Length: 3\r\n", b"abc"), 404),
    "an upgrade with a body": (_with(b"Content-Length: 3") + b"abc", 400),
    "an upgrade in chunks": (_with(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    "CL.TE": (
        _with(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\nG" + HELLO, 400),
    "TE.CL": (
        _with(b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"5c\r\n" + HELLO, 400),
    "two lengths": (_with(b"Content-Length: 0", b"Content-Length: 5") + HELLO, 400),
    "a list of lengths": (_with(b"Content-Length: 0, 5"), 400),
    "a negative length": (_with(b"Content-Length: -1"), 400),
    "a length with a sign": (_with(b"Content-Length: +5"), 400),
    "a hexadecimal length": (_with(b"Content-Length: 0x5"), 400),
    "a length of words": (_with(b"Content-Length: " + CANARY), 400),
    "an empty length": (_with(b"Content-Length:"), 400),
    "a length of 5000 digits": (_with(b"Content-Length: " + b"9" * 5000), 400),
    "a length with an underscore": (_with(b"Content-Length: 1_0"), 400),
    "gzip": (_with(b"Transfer-Encoding: gzip"), 400),
    "chunked twice": (_with(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "xchunked": (_with(b"Transfer-Encoding: xchunked"), 400),
    "the same length twice": (_with(b"Content-Length: 5", b"Content-Length: 5") + b"abcde", 400),
    "chunked and more": (_with(b"Transfer-Encoding: chunked, identity"), 400),
    "chunked in capitals": (_with(b"TRANSFER-ENCODING: CHUNKED") + b"0\r\n\r\n", 400),
    "VT before chunked": (_with(b"Transfer-Encoding: \x0bchunked"), 400),
    "chunked behind a NUL": (_with(b"Transfer-Encoding: \0chunked"), 400),
    "a length behind a bare CR": (_with(b"X: 1\rContent-Length: 5"), 400),
    "a chunk of 2^64": (
        _with(b"Transfer-Encoding: chunked") + b"10000000000000000\r\n" + HELLO, 400),
    "identity": (_with(b"Transfer-Encoding: identity"), 400),
    "a second request behind the first": (request(b"GET / HTTP/1.1") + HELLO, 404),
    "a good one behind a bad one": (b"GET /\r\n\r\n" + HELLO, 400),
    "100 requests": (request(b"GET / HTTP/1.1") * 100, 404),
}

UPGRADES: dict[str, tuple[bytes, int]] = {
    "HTTP/1.0": (request(b"GET " + PATH + b" HTTP/1.0"), 400),
    "HTTP/1.0 without Host": (request(b"GET " + PATH + b" HTTP/1.0", b""), 400),
    "no Upgrade": (_without(b"Upgrade"), 426),
    "no Connection": (_without(b"Connection"), 400),
    "Upgrade: h2c": (_changed(b"Upgrade", b"h2c"), 426),
    "Connection: close": (_changed(b"Connection", b"close"), 400),
    "version 8": (_changed(b"Sec-WebSocket-Version", b"8"), 426),
    "version 1_3": (_changed(b"Sec-WebSocket-Version", b"1_3"), 426),
    "version in other digits": (_changed(b"Sec-WebSocket-Version", b"\xd9\xa1\xd9\xa3"), 426),
    "two versions": (_with(b"Sec-WebSocket-Version: 13"), 400),
    "no version of WebSocket": (_without(b"Sec-WebSocket-Version"), 426),
    "no key": (_without(b"Sec-WebSocket-Key"), 400),
    "an empty key": (_changed(b"Sec-WebSocket-Key", b""), 400),
    "two keys": (_with(b"Sec-WebSocket-Key: " + CANARY), 400),
    "a key of 1 kB": (_changed(b"Sec-WebSocket-Key", b"k" * 1000), 400),
    "a key of high bytes": (_changed(b"Sec-WebSocket-Key", b"\xff" * 16), 400),
    "a key with a space": (_changed(b"Sec-WebSocket-Key", b"a b"), 400),
    "another sub-protocol": (_with(b"Sec-WebSocket-Protocol: " + CANARY), 400),
    "a sub-protocol of high bytes": (_with(b"Sec-WebSocket-Protocol: \xff\xfe"), 400),
    "a WebSocket draft": (
        request(headers=HOST + b"Connection: Upgrade\r\nUpgrade: WebSocket\r\n"
                b"Sec-WebSocket-Key1: 1\r\nSec-WebSocket-Key2: 2\r\n", after=b"12345678"), 426),
    "the token as a header": (
        request(b"GET /v0/envelope/access HTTP/1.1", UPGRADE + b"Authorization: Bearer good\r\n"),
        401),
    "a bad token before a good one": (
        request(b"GET /v0/envelope/access?access_token=" + CANARY + b"&access_token=good HTTP/1.1"),
        401),
    "an empty token before a good one": (
        request(b"GET /v0/envelope/access?access_token&access_token=good HTTP/1.1"), 401),
    "a token of 8 kB": (
        request(b"GET /v0/envelope/access?access_token=" + b"a." * 4000 + b" HTTP/1.1"), 401),
    "15 kB of ampersands": (
        request(b"GET /v0/envelope/access?" + b"&" * 15000 + b" HTTP/1.1"), 401),
    "markup in the token": (
        request(b"GET /v0/envelope/access?access_token=<b>" + CANARY + b"</b> HTTP/1.1"), 401),
    "CR LF in the token": (
        request(b"GET /v0/envelope/access?access_token=%0d%0aSet-Cookie:" + CANARY + b" HTTP/1.1"),
        401),
    "HEAD": (request(b"HEAD " + PATH + b" HTTP/1.1"), 405),
    "TRACE": (request(b"TRACE " + PATH + b" HTTP/1.1", UPGRADE + b"X: " + CANARY + b"\r\n"), 405),
    "OPTIONS": (request(b"OPTIONS " + PATH + b" HTTP/1.1"), 405),
    "a method of 5 kB": (request(b"M" * 5000 + b" " + PATH + b" HTTP/1.1"), 405),
}

ATTACKS = NOT_HTTP | REQUEST_LINE | HEADERS | BODIES | UPGRADES

# Oddities that must not keep a good client out.
WELCOME: dict[str, bytes] = {
    "many parameters": request(
        b"GET /v0/envelope/access?" + b"a=1&" * 300 + b"access_token=good&b=2 HTTP/1.1"),
    "an Origin": _with(b"Origin: https://anywhere.example"),
    "a null Origin": _with(b"Origin: null"),
    "extensions": _with(b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"),
    "broken extensions": _with(b"Sec-WebSocket-Extensions: ;;,=\"permessage-deflate"),
    "a length of nothing": _with(b"Content-Length: 0"),
    "high bytes in a value": _with(b"User-Agent: caf\xe9"),
    "no space behind the colon": _with(b"X:1"),
    "blanks around a value": _with(b"X: \t 1 \t "),
    "94 headers more": _with(*[b"X: 1"] * 93),
    "a cookie of 14 kB": _with(b"Cookie: " + b"c" * 14000),
    "names in capitals": request(headers=UPGRADE.upper().replace(b"AGVSBG8K", b"aGVsbG8K")),
}


def test_the_table_is_long_enough() -> None:
    parts = (NOT_HTTP, REQUEST_LINE, HEADERS, BODIES, UPGRADES)
    assert len(ATTACKS) == sum(map(len, parts)), "no name is there twice"
    assert len(ATTACKS) >= 100


@pytest.fixture
def logged() -> Any:
    """What is logged above debug."""
    events: list[Any] = []

    def observe(event: Any) -> None:
        if event["log_level"] > LogLevel.debug:
            events.append(event)

    globalLogPublisher.addObserver(observe)
    yield events
    globalLogPublisher.removeObserver(observe)


def attack(data: bytes, size: int) -> Client:
    """Send `data` in pieces of `size`, wait, leave; and check what holds for every attack."""
    client = Client(FakeGate())
    client.send(*(data[i : i + size] for i in range(0, len(data), size)))
    client.clock.pump([1] * 12)
    assert client.gone, "nobody waits for ever"
    client.leave()
    assert client.received.count(b"HTTP/1.1 ") <= 1
    assert CANARY not in client.received
    assert b"Set-Cookie" not in client.received
    assert client.gate.sessions == []
    return client


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_bytes_are_answered_in_order(name: str, logged: list[Any]) -> None:
    data, status = ATTACKS[name]
    client = attack(data, len(data))
    assert client.status == status
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert name == "HEAD" or body.endswith(b".\n")
    assert logged == []


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_hostile_bytes_are_answered_the_same_however_they_are_split(name: str, size: int) -> None:
    data, status = ATTACKS[name]
    assert attack(data[:40000], size).status == status


@pytest.mark.parametrize("name", WELCOME)
def test_unusual_requests_that_are_accepted(name: str) -> None:
    client = Client()
    client.send(WELCOME[name])
    assert client.status == 101
    assert b"Extensions" not in client.received
    client.leave()


@pytest.mark.parametrize("size", range(0, len(HELLO), 16))
def test_half_a_request_is_disconnected_without_an_answer(size: int) -> None:
    assert attack(HELLO[:size], 1000).received == b""
