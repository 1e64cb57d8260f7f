"""Fetching over https from a real server: correct answers, and every kind of failure."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, wrapServerTLS
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from envelope.credentials.fetch import HttpsFetcher, trust_of
from envelope.credentials.httpreply import MOST_CONTENT, FetchFailed, Reply, ReplyReader
from envelope.credentials.pemfiles import TLSFileError
from envelope.credentials.tls import ServerTLS
from tests.support.certificates import Authority

URL = "https://keys.example/jwks?a=b"


def read(*pieces: bytes) -> Reply | None:
    reader = ReplyReader(URL)
    reply = None
    for piece in pieces:
        reply = reader.feed(piece)
    return reply


def test_the_request() -> None:
    """It has the port and the query of the URL; the user agent has no version."""
    reader = ReplyReader("https://keys.example:8443/a/jwks?b=c")
    assert (reader.host, reader.port) == ("keys.example", 8443)
    lines = reader.request.decode().split("\r\n")
    assert lines[:2] == ["GET /a/jwks?b=c HTTP/1.1", "Host: keys.example:8443"]
    assert lines[-4:] == ["User-Agent: envelope", "Connection: close", "", ""]
    assert ReplyReader("https://[2001:db8::1]").host == "2001:db8::1"
    assert ReplyReader("https://[2001:db8::1]").request.startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"], b"{}"),
        ([b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"],
         b"{}"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
          b"1\r\n}\r\n0\r\n\r\n"], b"{}"),
        ([b"HTTP/1.0 200 OK\r\n\r\n{", b"}", b""], b"{}"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], b""),
    ],
)
def test_answers(pieces: list[bytes], content: bytes) -> None:
    reply = read(*pieces)
    assert reply is not None
    assert reply.content == content


def test_headers_come_with_it() -> None:
    reply = read(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\nContent-Length: 0\r\n\r\n")
    assert reply is not None
    assert ("cache-control", "max-age=9") in reply.headers


OK = b"HTTP/1.1 200 OK\r\n"
BAD = {
    "not found": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "status"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n\r\n", "status"),
    "not HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "malformed"),
    "broken chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed"),
    "two lengths": (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "malformed"),
    "endless line": (b"HTTP/1.1 200 " + b"x" * 40_000, "malformed"),
    "endless headers": (OK + b"X-Filler: yes\r\n" * 4_000, "malformed"),
    "endless hints": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 14_000, "too-large"),
    "large": (OK + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000, "too-large"),
    "endless": (OK + b"\r\n" + b"x" * 400_000, "too-large"),
    "endless chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 60_000,
                       "too-large"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_answers(name: str) -> None:
    content, outcome = BAD[name]
    with pytest.raises(FetchFailed) as caught:
        read(*(content[start : start + 10_000] for start in range(0, len(content), 10_000)))
    assert caught.value.outcome == outcome
    assert "\n" not in str(caught.value)


def test_a_redirect_says_that_it_is_not_followed() -> None:
    with pytest.raises(FetchFailed, match="302; redirects are not followed"):
        read(BAD["redirect"][0])


def test_the_largest_answer() -> None:
    content = b"x" * MOST_CONTENT
    reply = read(OK + b"Content-Length: %d\r\n\r\n" % len(content), content)
    assert reply == Reply(content, (("content-length", str(MOST_CONTENT)),))


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_an_answer_or_a_failure(pieces: list[bytes]) -> None:
    reader = ReplyReader(URL)
    try:
        for piece in (OK, *pieces):  # an empty piece is the connection's end
            if reader.feed(piece) is not None:
                break
    except FetchFailed as failed:
        assert failed.outcome in ("malformed", "status", "too-large")


class Scripted(Protocol):
    """A server that says `words` once it is asked, and stays on the line unless it `hangs_up`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def connectionMade(self) -> None:
        self._server.open += 1

    def dataReceived(self, data: bytes) -> None:
        self._server.asked += data
        if not self._server.when_asked.called:
            self._server.when_asked.callback(None)
        self.transport.write(self._server.words)
        if self._server.hangs_up:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server.open -= 1
        if self._server.when_gone is not None and not self._server.open:
            self._server.when_gone.callback(None)


class Server:
    """A server on the loopback, whose certificate `authority` has issued."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.words = OK + b"Content-Length: 2\r\n\r\n{}"
        self.asked = b""
        self.hangs_up = False
        self.open = 0
        self.when_asked: Deferred[None] = Deferred()
        self.when_gone: Deferred[None] | None = None
        self._port: Any = None

    async def serve(self, *names: str, plain: bool = False, **dates: float) -> int:
        endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        if not plain:
            tls = ServerTLS.load(*self.authority.issue(*names, **dates))
            endpoint = wrapServerTLS(tls, endpoint)
        self._port = await endpoint.listen(Factory.forProtocol(lambda: Scripted(self)))
        return int(self._port.getHost().port)

    def fetcher(self, port: int, host: str = "127.0.0.1", patience: float = 20) -> HttpsFetcher:
        url = f"https://{host}:{port}/jwks"
        return HttpsFetcher(reactor, url, trust_of(self.authority.path), patience)

    async def gone(self) -> None:
        """Wait until no client is left."""
        if self.open:
            self.when_gone = Deferred()
            await self.when_gone

    async def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.stopListening()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    blockon(Deferred.fromCoroutine(server.close()))


async def refusal(fetcher: HttpsFetcher) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        await fetcher.fetch()
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@ensureDeferred
async def test_a_document_is_fetched(server: Server, host: str) -> None:
    """By address and by name; the connection is closed even if the server keeps it open."""
    port = await server.serve(host)
    fetcher = server.fetcher(port, host)
    reply = await fetcher.fetch()
    assert reply.content == b"{}"
    assert server.asked.startswith(b"GET /jwks HTTP/1.1\r\nHost: " + host.encode())
    await server.gone()


@ensureDeferred
async def test_an_answer_that_ends_with_the_connection(server: Server) -> None:
    server.words, server.hangs_up = OK + b"\r\n{}", True
    reply = await server.fetcher(await server.serve("127.0.0.1")).fetch()
    assert reply.content == b"{}"


@pytest.mark.parametrize(
    ("names", "dates", "words"),
    [
        (("127.0.0.2",), {}, "another host"),
        (("localhost",), {}, "another host"),
        (("127.0.0.1",), {"begins": -9.0, "ends": -1.0}, "certificate verify failed"),
        (("127.0.0.1",), {"begins": 1.0}, "certificate verify failed"),
        (("127.0.0.1",), {"common_name_alone": True}, "no name that can be read"),
        (("127.0.0.1", "*.lan"), {}, "no name that can be read"),
    ],
    ids=["other-address", "name-only", "expired", "not-yet-valid", "common-name", "wildcard"],
)
@ensureDeferred
async def test_an_invalid_certificate(
    server: Server, names: tuple[str, ...], dates: dict[str, float], words: str
) -> None:
    """No request is sent to such a server."""
    failed = await refusal(server.fetcher(await server.serve(*names, **dates)))
    assert failed.outcome == "tls"
    assert words in str(failed)
    assert server.asked == b""


@ensureDeferred
async def test_an_authority_that_is_not_trusted(server: Server) -> None:
    """Neither the given authorities nor the system's include it."""
    port = await server.serve("127.0.0.1")
    for trusted in (Authority(server.folder, "another").path, None):
        fetcher = HttpsFetcher(reactor, f"https://127.0.0.1:{port}/", trust_of(trusted))
        failed = await refusal(fetcher)
        assert (failed.outcome, str(failed)) == ("tls", "TLS failed: certificate verify failed")
    assert server.asked == b""


@pytest.mark.process
def test_the_systems_authorities_are_trusted(tmp_path: Path) -> None:
    """OpenSSL knows where they are; SSL_CERT_FILE names another place to a process of its own."""
    code = (
        "import sys\nfrom OpenSSL import SSL\nfrom envelope.credentials.fetch import trust_of\n"
        "context = SSL.Context(SSL.TLS_CLIENT_METHOD)\n"
        "trust_of(None)._addCACertsToContext(context)\n"
        "store = context.get_cert_store()\n"
        "import OpenSSL.crypto as c\nfrom cryptography import x509\n"
        "leaf = x509.load_pem_x509_certificate(open(sys.argv[1], 'rb').read())\n"
        "c.X509StoreContext(store, c.X509.from_cryptography(leaf)).verify_certificate()\n"
        "print('trusted')\n"
    )
    authority = Authority(tmp_path)
    cert, _ = authority.issue("keys.example")
    for trusted in (True, False):
        place = str(authority.path) if trusted else "/dev/null"
        done = subprocess.run(
            [sys.executable, "-c", code, cert], capture_output=True, text=True,
            env={**os.environ, "SSL_CERT_FILE": place}, cwd=Path(__file__).parents[2],
        )
        assert (done.stdout == "trusted\n") is trusted, done.stderr


@ensureDeferred
async def test_plain_http_is_no_answer(server: Server) -> None:
    server.words = OK + b"Content-Length: 2\r\n\r\n{}"
    failed = await refusal(server.fetcher(await server.serve(plain=True)))
    assert failed.outcome == "tls"


@ensureDeferred
async def test_a_refused_connection(server: Server) -> None:
    port = await server.serve("127.0.0.1")
    await server.close()
    failed = await refusal(server.fetcher(port))
    assert (failed.outcome, str(failed)) == ("unreachable", "connection refused")


@pytest.mark.parametrize("name", ["nobody.invalid", "xn--0.example", "a_b.example", "a..b"])
@ensureDeferred
async def test_an_unknown_host_name(server: Server, name: str) -> None:
    """And one that cannot exist."""
    failed = await refusal(server.fetcher(1, name))
    assert failed.outcome == "unreachable"


@pytest.mark.parametrize("words", [b"", OK, OK + b"Content-Length: 99\r\n\r\n{"])
@ensureDeferred
async def test_a_connection_that_ends_too_soon(server: Server, words: bytes) -> None:
    server.words, server.hangs_up = words, True
    failed = await refusal(server.fetcher(await server.serve("127.0.0.1")))
    assert failed.outcome == "malformed"


@pytest.mark.parametrize("words", [b"", OK, OK + b"Content-Length: 99\r\n\r\n{"])
@ensureDeferred
async def test_a_fetch_that_takes_too_long_ends(server: Server, words: bytes) -> None:
    """At whatever point the server stops; the connection is dropped."""
    server.words = words
    failed = await refusal(server.fetcher(await server.serve("127.0.0.1"), patience=0.3))
    assert (failed.outcome, str(failed)) == ("timeout", "there was no whole answer within 0.3 s")
    await server.gone()


@pytest.mark.parametrize("connected", [False, True])
@ensureDeferred
async def test_a_fetch_can_be_cancelled(server: Server, connected: bool) -> None:
    """During the name lookup and while it waits for the answer; no connection is left."""
    server.words = b""
    fetching = server.fetcher(await server.serve("127.0.0.1")).fetch()
    if connected:
        await server.when_asked
    fetching.cancel()
    with pytest.raises((CancelledError, FetchFailed)):
        await fetching
    await server.gone()


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("rubbish")
    with pytest.raises(TLSFileError, match=r"ca\.pem is not a chain"):
        trust_of(tmp_path / "ca.pem")
