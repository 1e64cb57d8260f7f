"""Old, strict and broken TLS clients, made with the standard library's OpenSSL."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from envelope.credentials import tls
from envelope.credentials.tls import Profile, ServerTLS
from tests.credentials.test_tls import client, shake_hands
from tests.support.certificates import Authority
from tests.support.loopbackservice import port_of, twistd


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serve(authority: Authority, profile: Profile = "intermediate") -> ServerTLS:
    return ServerTLS.load(*authority.issue("a.example"), profile)


class Peer:
    """A client in memory; `reused` says whether an old session was taken up."""

    def __init__(
        self, authority: Authority, name: str | None = "a.example",
        context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None,
    ) -> None:
        self.context = context or ssl.create_default_context(cafile=str(authority.path))
        if name is None:
            self.context.check_hostname = False
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(
            self._in, self._out, server_hostname=name, session=session
        )

    def shake_hands(self, server: ServerTLS) -> None:
        connection = server.serverConnectionForTLS(None)  # type: ignore[arg-type]
        connection.set_accept_state()
        for _ in range(6):
            for step in (self.tls.do_handshake, connection.do_handshake):
                with suppress(ssl.SSLWantReadError, SSL.WantReadError):
                    step()
                if self._out.pending:
                    connection.bio_write(self._out.read())
                with suppress(SSL.WantReadError):
                    self._in.write(connection.bio_read(65536))
        with suppress(ssl.SSLWantReadError):
            self.tls.read(1)  # takes in the session, if one is offered


@pytest.mark.parametrize("name", ["a.example", None])
def test_with_and_without_a_server_name(authority: Authority, name: str | None) -> None:
    """SNI, RFC 6066 section 3."""
    peer = Peer(authority, name)
    peer.shake_hands(serve(authority))
    assert peer.tls.version() == "TLSv1.3"


def test_an_unknown_server_name_gets_the_same_certificate(authority: Authority) -> None:
    """The client refuses it, not the service."""
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        Peer(authority, "b.example").shake_hands(serve(authority))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_session_is_resumed(authority: Authority, version: ssl.TLSVersion) -> None:
    """Neither by ticket nor by session number, in both versions."""
    server = serve(authority)
    context = ssl.create_default_context(cafile=str(authority.path))
    context.maximum_version = version
    first = Peer(authority, context=context)
    first.shake_hands(server)
    second = Peer(authority, context=context, session=first.tls.session)
    second.shake_hands(server)
    assert not second.tls.session_reused


def test_modern_speaks_nothing_older_than_tls_1_3(authority: Authority) -> None:
    old, new = client(SSL.TLS1_2_VERSION), client(SSL.TLS1_3_VERSION)
    modern = serve(authority, "modern")
    with pytest.raises(SSL.Error):
        shake_hands(modern, old)
    shake_hands(modern, new)
    assert new.get_protocol_version_name() == "TLSv1.3"


@pytest.mark.parametrize(
    ("curve", "welcome"),
    [(ec.SECP256R1(), True), (ec.SECP384R1(), True), (ec.SECP521R1(), False)],
    ids=["P-256", "P-384", "P-521"],
)
def test_groups_are_mozillas(
    authority: Authority, curve: ec.EllipticCurve, welcome: bool
) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tmp_ecdh(curve)
    peer = SSL.Connection(context, None)
    peer.set_connect_state()
    server = serve(authority)
    if welcome:
        shake_hands(server, peer)
    else:
        with pytest.raises(SSL.Error):
            shake_hands(server, peer)


class OlderLibrary:
    """The library below pyOpenSSL, without the call that chooses groups."""

    def __getattr__(self, name: str) -> object:
        if name == "SSL_CTX_set1_curves_list":
            raise AttributeError(name)
        return getattr(_LIBRARY, name)


_LIBRARY = SSL._lib


@pytest.mark.parametrize(
    ("broken", "value", "why"),
    [
        ("_GROUPS", (b"no-such-group",), "no list of groups is accepted"),
        ("SSL._lib", OlderLibrary(), "SSL_CTX_set1_curves_list is missing"),
    ],
)
def test_a_limited_key_exchange_is_explained(
    monkeypatch: pytest.MonkeyPatch, broken: str, value: object, why: str
) -> None:
    """When a library is too old, or renames what is private in it."""
    assert tls._find_groups() == (tls._groups, None)
    monkeypatch.setattr(f"envelope.credentials.tls.{broken}", value)
    groups, line = tls._find_groups()
    assert groups is None
    assert line is not None
    assert line.startswith(f"TLS key exchange is limited to P-256: {why} (pyOpenSSL 2")
    assert line.endswith("; install cryptography 47 or later")


def test_without_a_list_of_groups_p_256_is_left(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older libraries still give a secure service."""
    monkeypatch.setattr("envelope.credentials.tls._groups", None)
    server = serve(authority)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_tmp_ecdh(ec.SECP384R1())
    peer = SSL.Connection(context, None)
    peer.set_connect_state()
    with pytest.raises(SSL.Error):
        shake_hands(server, peer)
    shake_hands(server, client())


_RANDOM = bytes(range(32))
# The opening bytes of clients that are too old, or no clients at all.
HELLOS = {
    # The draft of 1995: version 0.2, three ciphers, no session, a challenge of 16 bytes.
    "SSL 2.0": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(21) + _RANDOM[:16],
    "SSL 2.0 that offers TLS 1.2":
        b"\x80\x1c\x01\x03\x03\x00\x03\x00\x00\x00\x10" + b"\x00\x00\x2f" + _RANDOM[:16],
    **{
        name: b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29" + version + _RANDOM
        + b"\x00\x00\x02\xc0\x09\x01\x00"
        for name, version in {
            "SSL 3.0": b"\x03\x00", "TLS 1.0": b"\x03\x01", "TLS 1.1": b"\x03\x02",
        }.items()
    },
    "an oversized record": b"\x16\x03\x01\xff\xff" + bytes(100),
    "an empty record and silence": b"\x16\x03\x01\x00\x00" * 40,
    "plain HTTP": b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "application data": b"\x17\x03\x03\x00\x05hello",
}


@pytest.mark.process
def test_invalid_hellos_end_in_an_alert_or_a_close(
    authority: Authority, tmp_path: Path
) -> None:
    """At the real socket: at once, and good clients are served meanwhile."""
    cert, key = authority.issue("localhost")
    with twistd(
        tmp_path, "--token-required=false", f"--cert={cert}", f"--key={key}"
    ) as service:
        port = port_of(service)
        service.until("ready$")
        for name, hello in HELLOS.items():
            with socket.create_connection(("127.0.0.1", port), 20) as peer:
                peer.sendall(hello)
                answer = b""
                with suppress(ConnectionResetError):
                    while more := peer.recv(4096):
                        answer += more
            assert answer == b"" or (answer[0], len(answer)) == (0x15, 7), name
        context = ssl.create_default_context(cafile=str(authority.path))
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secure.recv(100).startswith(b"HTTP/1.1 404 ")
        assert service.stop() == 0
        assert not [line for line in service.seen if "raceback" in line or "nhandled" in line]
