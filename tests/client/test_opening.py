"""Opening, holding and closing an envelope, with a server that answers as it is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.task import deferLater
from zope.interface import implementer

from envelope.client import BadURL, Ended, Family, Refused, opened
from envelope.client.locate import LocateFailed, locate
from tests.client.fakeserver import SWITCH, FakeServer
from tests.support.certificates import Authority

REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 29\r\n\r\n"
    b"TheToken found no free slot.\n"
)


def pause(seconds: float = 0.02) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


async def refusal(url: str, **how: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        async with opened(reactor, url, **how):
            pass
    return caught.value


@ensureDeferred
async def test_it_holds_in_silence_and_closes() -> None:
    """The only bytes after the request are those of the close frame."""
    async with FakeServer() as server:
        async with opened(reactor, server.url(), user_agent="tests") as held:
            assert held.address == held.client_address == ip_address("127.0.0.1")
            assert held.missing is None
            await pause(0.2)
            (peer,) = server.asked
            assert peer.received == b""
            ended = held.ended
        assert await ended == Ended.CLOSED
        assert peer.received[:2] == b"\x88\x82"
        assert b"User-Agent: tests" in peer.head


@pytest.mark.parametrize(("sent", "end"), [
    (b"\x88\x0a\x0f\xa0deadline", "deadline"), (b"\x88\x02\x0f\xa1", "revoked"),
    (b"\x88\x02\x0f\xa2", "idle"), (b"\x88\x02\x03\xe9", "stopping"), (b"\x88\x00", "closed"),
    (b"\x88\x02\x03\xeb", "data"), (b"", "lost"), (b"\x81\x01x", "lost"),
])
@pytest.mark.parametrize("at_once", [True, False])
@ensureDeferred
async def test_how_it_ends(sent: bytes, end: str, at_once: bool) -> None:
    """Also if the end arrives together with the answer; everyone who asks is told."""
    async with FakeServer(SWITCH + (sent if at_once else b""), echo_close=False) as server:
        async with opened(reactor, server.url()) as held:
            if not at_once or not sent:
                if sent:
                    server.asked[0].transport.write(sent)
                else:
                    server.asked[0].transport.abortConnection()
            assert await held.ended == end
            assert await held.ended == end
            await pause()
        if sent[:1] == b"\x88":
            assert server.asked[0].received[:1] == b"\x88"


@ensureDeferred
async def test_a_ping_is_answered_and_a_pong_is_not() -> None:
    async with FakeServer(echo_close=False) as server, opened(reactor, server.url()):
        (peer,) = server.asked
        peer.transport.write(b"\x8a\x00\x89\x01x")
        await pause(0.05)
        assert (peer.received[:2], len(peer.received)) == (b"\x8a\x81", 7)
        server.echo_close = True


@pytest.mark.parametrize("secure", [False, True])
@ensureDeferred
async def test_answers_to_pings_do_not_pile_up(authority: Authority, secure: bool) -> None:
    """The server reads nothing while it sends; how it ends is seen all the same."""
    tls = authority.issue("127.0.0.1") if secure else None
    pings = 100_000
    async with FakeServer(echo_close=False, tls=tls) as server:
        async with opened(reactor, server.url("wss" if secure else "ws")) as held:
            (peer,) = server.asked
            peer.transport.pauseProducing()
            peer.transport.write((b"\x89\x7d" + bytes(125)) * pings + b"\x88\x02\x0f\xa0")
            assert await held.ended == Ended.DEADLINE
            peer.transport.resumeProducing()
        await peer.lost
        # The kernel holds some megabytes of them.
        assert len(peer.received) < 131 * pings * 0.8
        assert peer.received[-8:-6] == b"\x88\x82"


@ensureDeferred
async def test_a_refusal_has_status_text_and_retry_after() -> None:
    """The text does not show the token."""
    async with FakeServer(REFUSAL) as server:
        refused = await refusal(server.url())
        assert (refused.status, refused.retry_after) == (503, 5)
        assert refused.text == "(token) found no free slot."
        assert str(refused) == f"127.0.0.1:{server.port}: 503 (token) found no free slot."


@pytest.mark.parametrize(("answer", "status", "text"), [
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, "without a text"),
    (b"HTTP/1.1 502 Bad\r\nContent-Length: 9\r\n\r\n<\nh t\x1bm>\n", 502, "< h t?m>"),
    (b"HTTP/1.1 500 Bad\r\n\r\n" + b"x" * 9000, 500, "x" * 300 + "..."),
    (SWITCH.replace(b"ACCEPT", b"x"), 101,
     "the server's Sec-WebSocket-Accept does not belong to the request"),
    (b"SSH-2.0\r\n\r\n", None, "the answer is not HTTP"),
])
@ensureDeferred
async def test_other_answers(answer: bytes, status: int | None, text: str) -> None:
    async with FakeServer(answer) as server:
        refused = await refusal(server.url())
        assert (refused.status, refused.text, refused.retry_after) == (status, text, None)


@ensureDeferred
async def test_a_server_that_says_nothing() -> None:
    async with FakeServer(b"") as server:
        refused = await refusal(server.url(), patience=0.1)
        assert (refused.status, refused.text) == (None, "there was no answer within 0.1 s")


@ensureDeferred
async def test_a_server_that_does_not_answer_the_close_is_left() -> None:
    async with FakeServer(echo_close=False) as server:
        async with opened(reactor, server.url()) as held:
            ended = held.ended
        assert await ended == Ended.LOST


@ensureDeferred
async def test_an_opening_can_be_cancelled() -> None:
    async with FakeServer(b"") as server:
        entering = Deferred.fromCoroutine(opened(reactor, server.url()).__aenter__())
        while not server.asked:
            await pause()
        entering.cancel()
        with pytest.raises(CancelledError):
            await entering


@pytest.mark.parametrize(("family", "host"), [
    (Family.ANY, "127.0.0.1"), (Family.IPV4, "127.0.0.1"), (Family.IPV6, "[::1]"),
])
@ensureDeferred
async def test_an_opening_can_be_cancelled_while_it_connects(family: Family, host: str) -> None:
    with (
        socket.create_server(
            ("", 0), family=socket.AF_INET6, backlog=0, dualstack_ipv6=True
        ) as silent,
        # A backlog of 0 holds this one; the kernel answers no other.
        socket.create_connection(("127.0.0.1", silent.getsockname()[1])),
    ):
        url = f"ws://{host}:{silent.getsockname()[1]}/v0/envelope/access"
        entering = Deferred.fromCoroutine(opened(reactor, url, family=family).__aenter__())
        while not reactor.getWriters():
            await pause()
        entering.cancel()
        with pytest.raises(CancelledError):
            await entering


@pytest.mark.parametrize("family", Family)
@ensureDeferred
async def test_an_opening_can_be_cancelled_during_a_look_up(family: Family) -> None:
    url = "ws://localhost:1/v0/envelope/access"
    entering = Deferred.fromCoroutine(opened(reactor, url, family=family).__aenter__())
    entering.cancel()
    with pytest.raises(CancelledError):
        await entering


@ensureDeferred
async def test_waiting_for_the_end_can_be_cancelled() -> None:
    async with FakeServer() as server, opened(reactor, server.url()) as held:
        waiting = held.ended
        waiting.cancel()
        with pytest.raises(CancelledError):
            await waiting


def test_a_bad_url_is_refused_at_once() -> None:
    with pytest.raises(BadURL):
        opened(reactor, "http://127.0.0.1/")


@pytest.mark.parametrize("host", ["a_b.example", "-"])
@ensureDeferred
async def test_what_is_no_name_of_a_host_is_refused(host: str) -> None:
    assert (await refusal(f"ws://{host}:1/")).text == "its name cannot be looked up"


@ensureDeferred
async def test_a_number_is_an_address_that_no_certificate_has() -> None:
    async with FakeServer() as server:
        refused = await refusal(server.url("wss", str(int(ip_address("127.0.0.1")))))
        assert refused.text == "no certificate can prove such a name"


@ensureDeferred
async def test_nobody_listens() -> None:
    async with FakeServer() as server:
        url = server.url()
    assert (await refusal(url)).text == "connection refused"
    assert (await refusal(url, family=Family.IPV4)).text == "connection refused"


# -- both families ---------------------------------------------------------------------------

@implementer(IHostnameResolver)
class Names:
    """Every name has both loopback addresses."""

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        receiver.resolutionBegan(self)
        for kind, host in ((IPv4Address, "127.0.0.1"), (IPv6Address, "::1")):
            if addressTypes is None or kind in addressTypes:
                receiver.addressResolved(kind("TCP", host, portNumber))
        receiver.resolutionComplete()
        return self


@pytest.fixture
def names() -> Iterator[None]:
    any_reactor: Any = reactor
    before = any_reactor.installNameResolver(Names())
    yield
    any_reactor.installNameResolver(before)


@ensureDeferred
async def test_both_families(names: None) -> None:
    async with FakeServer() as first, FakeServer(version=6, port=first.port) as second:
        url = first.url(host="both.example")
        for family, peers in ((Family.IPV4, (1, 0)), (Family.IPV6, (1, 1)), (Family.BOTH, (2, 2))):
            async with opened(reactor, url, family=family) as held:
                assert (len(first.asked), len(second.asked)) == peers
        assert [str(each) for each in held.addresses] == ["127.0.0.1", "::1"]
        assert [str(each) for each in held.client_addresses] == ["127.0.0.1", "::1"]
        assert str(held.address) == str(held.client_address) == "127.0.0.1"
        async with opened(reactor, url, family=Family.BOTH) as held:
            second.asked[-1].transport.write(b"\x88\x02\x0f\xa1")
            assert await held.ended == Ended.REVOKED


@ensureDeferred
async def test_one_of_both_families_is_refused(names: None) -> None:
    """By default that is a refusal, and the other one is closed; with `partial` it is enough."""
    async with FakeServer() as first, FakeServer(REFUSAL, version=6, port=first.port) as second:
        url = first.url(host="both.example")
        refused = await refusal(url, family=Family.BOTH)
        assert refused.status == 503
        assert refused.text == "(token) found no free slot. (over IPv6)"
        assert first.asked[0].lost.called
        async with opened(reactor, url, family=Family.BOTH, partial=True) as held:
            assert [str(each) for each in held.addresses] == ["127.0.0.1"]
            assert held.missing is not None
            assert held.missing.status == 503
        first.answer = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
        refused = await refusal(url, family=Family.BOTH, partial=True)
        assert (refused.status, refused.text) == (
            401, "no (over IPv4), 503 (token) found no free slot. (over IPv6)")
        first.answer = second.answer
        assert (await refusal(url, family=Family.BOTH)).text == "(token) found no free slot."


@ensureDeferred
async def test_an_address_has_one_family() -> None:
    async with FakeServer() as server:
        refused = await refusal(server.url(), family=Family.IPV6)
        assert refused.text == "it has no IPv6 address, or its name cannot be looked up"


# -- TLS -------------------------------------------------------------------------------------

@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that OpenSSL trusts."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    return authority


@pytest.mark.parametrize(("issued", "how", "said"), [
    ({"names": ["127.0.0.1"]}, {}, None),
    ({"names": ["b.example"]}, {},
     "the server's certificate does not prove its name: it is for another one"),
    ({"names": ["127.0.0.1"], "ends": -0.5}, {},
     "the server's certificate does not prove its name: "
     "it has expired, or no authority that is trusted here signed it"),
    ({"names": ["127.0.0.1"], "common_name_alone": True}, {},
     "the server's certificate does not prove its name: it has no name that can be read"),
    ({"names": ["127.0.0.1", "*.lan"]}, {},
     "the server's certificate does not prove its name: it has no name that can be read"),
    ({"names": ["b.example"], "ends": -0.5}, {"insecure": True}, None),
])
@ensureDeferred
async def test_certificates_are_verified(
    authority: Authority, issued: dict[str, Any], how: dict[str, Any], said: str | None
) -> None:
    """The request, and with it the token, is sent only if they are right."""
    names = issued.pop("names")
    async with FakeServer(tls=authority.issue(*names, **issued)) as server:
        if said is None:
            async with opened(reactor, server.url("wss"), **how) as held:
                assert str(held.address) == "127.0.0.1"
            return
        assert (await refusal(server.url("wss"))).text == said
        assert all(not peer.head for peer in server.peers)


@ensureDeferred
async def test_a_strange_authority_is_not_trusted(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path, "stranger")
    async with FakeServer(tls=stranger.issue("127.0.0.1", alone=True)) as server:
        refused = await refusal(server.url("wss"))
        assert "no authority that is trusted here signed it" in refused.text


@ensureDeferred
async def test_a_name_is_sent_and_verified(names: None, authority: Authority) -> None:
    async with FakeServer(tls=authority.issue("a.example")) as server:
        for insecure in (False, True):
            async with opened(reactor, server.url("wss", "a.example"), insecure=insecure):
                pass


@ensureDeferred
async def test_tls_with_a_server_without_it() -> None:
    async with FakeServer() as server:
        assert (await refusal(server.url("wss"), patience=1)).text.startswith(
            ("TLS failed: ", "there was no answer"))


# -- Locate ----------------------------------------------------------------------------------

@ensureDeferred
async def test_locate_proves_its_name_as_well(authority: Authority) -> None:
    """It is asked for an answer that is not compressed."""
    content = b'{"results": [{"urls": {"k": "ws://x/"}}]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content)
    async with FakeServer(answer, tls=authority.issue("b.example")) as server:
        url = f"https://127.0.0.1:{server.port}/"
        with pytest.raises(LocateFailed, match="it is for another one"):
            await locate(reactor, url, "a/b", "k", patience=5)
        assert await locate(reactor, url, "a/b", "k", patience=5, insecure=True) == ["ws://x/"]
        (peer,) = server.asked
        assert b"\r\nAccept-Encoding: identity" in peer.head


@ensureDeferred
async def test_locate_that_cannot_be_reached() -> None:
    async with FakeServer() as server:
        url = f"http://127.0.0.1:{server.port}/v2/nearest/"
    with pytest.raises(LocateFailed, match="connection refused"):
        await locate(reactor, url, "a/b", None, patience=5)
    with pytest.raises(BadURL):
        await locate(reactor, "ftp://x/", "a/b", None, patience=5)
