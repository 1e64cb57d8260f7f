"""The service's TLS against OpenSSL clients, in memory."""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtensionOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from envelope.credentials.fetch import trust_of
from envelope.credentials.pemfiles import TLSFileError, read_certificates
from envelope.credentials.tls import ServerTLS
from envelope.runtime.transports import TLSFactory
from tests.support.certificates import Authority

PKCS8 = PrivateFormat.PKCS8


class Pair:
    """A certificate file and a key file that can be rewritten in place."""

    def __init__(self, folder: Path) -> None:
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"

    def write(
        self, name: str, key: Any = None, digest: Any = hashes.SHA256(),  # noqa: B008
        alternatives: bytes = b"",
    ) -> None:
        key = key or ec.generate_private_key(ec.SECP256R1())
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PKCS8, NoEncryption()))
        self.cert.write_bytes(certificate(name, key, digest, alternatives))


def certificate(name: str, key: Any, digest: Any, alternatives: bytes = b"") -> bytes:
    """In PEM; `alternatives` is the content of its subjectAltName, in DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now).not_valid_after(now + timedelta(days=90))
    )
    if alternatives:
        names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, alternatives)
        builder = builder.add_extension(names, critical=False)
    made = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else digest)
    return made.public_bytes(Encoding.PEM)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.write("first.example")
    return pair


def client(version: int | None = None, alpn: list[bytes] | None = None) -> SSL.Connection:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    if alpn is not None:
        context.set_alpn_protos(alpn)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    return connection


def shake_hands(tls: ServerTLS, peer: SSL.Connection) -> SSL.Connection:
    """Let both sides talk until both are done; raise the first side's error."""
    server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
    server.set_accept_state()
    for _ in range(6):
        for one, other in ((peer, server), (server, peer)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return server


def pass_on(peer: SSL.Connection, service: Any, transport: StringTransport) -> bool:
    """Bring what a client has to say to a service, and the answer back; whether there was one."""
    service.dataReceived(peer.bio_read(65536))
    answer = transport.value()
    transport.clear()
    if answer:
        peer.bio_write(answer)
    return bool(answer)


def name_of(peer: SSL.Connection) -> str:
    seen = peer.get_peer_certificate(as_cryptography=True)
    assert seen is not None
    return str(seen.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_it_is_what_twisted_asks_for(pair: Pair) -> None:
    assert verifyObject(IOpenSSLServerConnectionCreator, ServerTLS.load(pair.cert, pair.key))


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_current_versions_are_spoken_with_authenticated_encryption(
    pair: Pair, version: int
) -> None:
    peer = client(version)
    shake_hands(ServerTLS.load(pair.cert, pair.key), peer)
    cipher = peer.get_cipher_name()
    assert cipher is not None
    assert "GCM" in cipher or "CHACHA20" in cipher


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_old_versions_are_refused(pair: Pair, version: int) -> None:
    tls = ServerTLS.load(pair.cert, pair.key)
    peer = client(version)
    with pytest.raises(SSL.Error):
        shake_hands(tls, peer)


@pytest.mark.parametrize(
    "weak", [b"AES128-GCM-SHA256", b"ECDHE-ECDSA-AES128-SHA", b"ECDHE-ECDSA-AES128-CCM"]
)
def test_weak_suites_are_refused(pair: Pair, weak: bytes) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(weak + b":@SECLEVEL=0")
    peer = SSL.Connection(context, None)
    peer.set_connect_state()
    with pytest.raises(SSL.Error):
        shake_hands(ServerTLS.load(pair.cert, pair.key), peer)


@pytest.mark.parametrize(
    ("offered", "selected"),
    [
        (None, b""),
        ([b"http/1.1"], b"http/1.1"),
        ([b"h2", b"http/1.1"], b"http/1.1"),
        ([b"h2"], b""),
    ],
)
def test_alpn(pair: Pair, offered: list[bytes] | None, selected: bytes) -> None:
    """A client that offers no common protocol is served without ALPN."""
    peer = client(alpn=offered)
    shake_hands(ServerTLS.load(pair.cert, pair.key), peer)
    assert peer.get_alpn_proto_negotiated() == selected
    assert name_of(peer) == "first.example"


def test_a_session_is_not_resumed(pair: Pair) -> None:
    """A client that offers its old session gets a new key."""
    tls = ServerTLS.load(pair.cert, pair.key)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    first, second = SSL.Connection(context, None), SSL.Connection(context, None)
    first.set_connect_state()
    shake_hands(tls, first)
    session = first.get_session()
    assert session is not None
    second.set_session(session)
    second.set_connect_state()
    shake_hands(tls, second)
    assert first.master_key() != second.master_key()


def test_the_whole_chain_is_sent(pair: Pair) -> None:
    issuer = ec.generate_private_key(ec.SECP256R1())
    extra = certificate("issuer.example", issuer, hashes.SHA256())
    pair.cert.write_bytes(pair.cert.read_bytes() + extra)
    peer = client()
    shake_hands(ServerTLS.load(pair.cert, pair.key), peer)
    chain = peer.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    assert len(chain) == 2


def test_the_end_of_the_certificate_is_known(pair: Pair) -> None:
    tls = ServerTLS.load(pair.cert, pair.key)
    assert tls.validity.not_before == datetime(2026, 1, 1, tzinfo=UTC)
    assert tls.validity.not_after == datetime(2026, 4, 1, tzinfo=UTC)


@pytest.mark.parametrize("alternatives", [
    b"no DER", b"\x30\x04\xa3\x02\x05\x00", b"\x30\x05\x82\x03\xff\x61\xfe",
], ids=["nothing", "an X.400 address", "bytes that are no text"])
def test_names_that_cannot_be_read_are_none(pair: Pair, alternatives: bytes) -> None:
    """The clients, whose business they are, are served."""
    pair.write("other.example", alternatives=alternatives)
    tls = ServerTLS.load(pair.cert, pair.key)
    assert tls.names == ()
    shake_hands(tls, client())


def test_a_new_certificate_serves_the_next_connection(pair: Pair) -> None:
    tls = ServerTLS.load(pair.cert, pair.key)
    old = client()
    server = shake_hands(tls, old)
    pair.write("second.example")
    tls.reload()
    new = client()
    shake_hands(tls, new)
    assert (name_of(old), name_of(new)) == ("first.example", "second.example")
    server.send(b"still here")
    old.bio_write(server.bio_read(65536))
    assert old.recv(100) == b"still here"


def test_a_bad_certificate_changes_nothing(pair: Pair) -> None:
    tls = ServerTLS.load(pair.cert, pair.key)
    before = tls.validity
    pair.cert.write_bytes(b"half a fi")
    with pytest.raises(TLSFileError):
        tls.reload()
    peer = client()
    shake_hands(tls, peer)
    assert name_of(peer) == "first.example"
    assert tls.validity == before


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["RSA", "P-384", "Ed25519"],
)
def test_kinds_of_keys(pair: Pair, key: Any) -> None:
    pair.write("kind.example", key)
    peer = client()
    shake_hands(ServerTLS.load(pair.cert, pair.key), peer)
    assert name_of(peer) == "kind.example"


def refusal(pair: Pair) -> str:
    with pytest.raises(TLSFileError) as caught:
        ServerTLS.load(pair.cert, pair.key)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_missing_file_is_named(pair: Pair) -> None:
    """Also one whose name is no text."""
    pair.key.unlink()
    assert refusal(pair) == f"{pair.key} cannot be read: No such file or directory"
    pair.key = pair.key.with_name("\udcff")
    assert refusal(pair) == f"{pair.key.with_name('?')} cannot be read: No such file or directory"


def test_a_folder_is_no_certificate(pair: Pair) -> None:
    pair.cert.unlink()
    pair.cert.mkdir()
    assert refusal(pair) == f"{pair.cert} cannot be read: Is a directory"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x30\x82\x01\x00" * 9])
def test_files_that_are_not_pem(pair: Pair, content: bytes) -> None:
    good = pair.cert.read_bytes()
    pair.cert.write_bytes(content)
    assert "chain of certificates in PEM" in refusal(pair)
    pair.cert.write_bytes(good)
    pair.key.write_bytes(content)
    assert "private key in PEM" in refusal(pair)


@pytest.mark.parametrize(("right", "wrong"), [
    (b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x52"), (b"first.example", b"\xffirst.example"),
], ids=["the version 83", "a name that is no text"])
def test_a_certificate_that_is_broken_inside_is_refused(
    pair: Pair, right: bytes, wrong: bytes
) -> None:
    """By one of the two libraries that read it, each with errors of its own."""
    der = ssl.PEM_cert_to_DER_cert(pair.cert.read_text())
    assert right in der
    pair.cert.write_text(ssl.DER_cert_to_PEM_cert(der.replace(right, wrong)))
    assert refusal(pair).startswith(f"{pair.cert} ")
    with pytest.raises(TLSFileError, match=r"^.*/cert\.pem .*$"):
        trust_of(pair.cert)


def test_an_encrypted_key_is_refused(pair: Pair) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pair.key.write_bytes(
        key.private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"word"))
    )
    assert "is encrypted" in refusal(pair)


def test_a_key_of_another_certificate_is_refused(pair: Pair) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    pair.key.write_bytes(other.private_bytes(Encoding.PEM, PKCS8, NoEncryption()))
    assert "is not the key of the first certificate" in refusal(pair)


def test_weak_keys_are_refused(pair: Pair) -> None:
    pair.write("weak.example", rsa.generate_private_key(65537, 1024))
    assert "1024 bits" in refusal(pair)
    pair.write("weak.example", ec.generate_private_key(ec.SECP224R1()))
    assert "224 bits" in refusal(pair)
    pair.write("weak.example", dsa.generate_private_key(2048))
    assert "a kind of key" in refusal(pair)


KEYS = {
    "rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", [PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("label", [b"PRIVATE KEY", b"EC PRIVATE KEY", b"RSA PRIVATE KEY"])
def test_a_key_is_read_whatever_its_label_says(
    pair: Pair, kind: str, form: PrivateFormat, label: bytes
) -> None:
    """PKCS #8 is handed out as EC PRIVATE KEY (RFC 5915), and the other way round."""
    if kind == "ed25519":
        form = PKCS8
    pair.write("first.example", KEYS[kind])
    text = KEYS[kind].private_bytes(Encoding.PEM, form, NoEncryption())
    pair.key.write_bytes(re.sub(rb"(BEGIN|END) [A-Z ]*PRIVATE KEY", rb"\1 " + label, text))
    peer = client()
    shake_hands(ServerTLS.load(pair.cert, pair.key), peer)
    assert name_of(peer) == "first.example"


@pytest.mark.parametrize("label", [b"PRIVATE KEY", b"EC PRIVATE KEY"])
def test_an_encrypted_key_is_named_whatever_its_label_says(pair: Pair, label: bytes) -> None:
    text = KEYS["ec"].private_bytes(Encoding.PEM, PKCS8, BestAvailableEncryption(b"word"))
    pair.key.write_bytes(text.replace(b"ENCRYPTED PRIVATE KEY", label))
    assert "is encrypted" in refusal(pair)


def test_parameters_and_certificates_beside_the_key_are_ignored(pair: Pair) -> None:
    """`openssl ecparam -genkey` writes EC PARAMETERS first; others put all in one file."""
    text = KEYS["ec"].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    pair.write("first.example", KEYS["ec"])
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    mislabelled = text.replace(b"EC PRIVATE", b"PRIVATE")
    for content in (parameters + text, parameters + mislabelled):
        pair.key.write_bytes(content)
        ServerTLS.load(pair.cert, pair.key)
    both = pair.cert.read_bytes() + mislabelled
    pair.cert.write_bytes(both)
    pair.key.write_bytes(both)
    ServerTLS.load(pair.cert, pair.key)


@pytest.mark.parametrize("left_out", [1, 5, 20, 40, 200, 400])
def test_a_chain_that_is_cut_short_is_refused(pair: Pair, left_out: int) -> None:
    """Its last certificate would be left out without a word."""
    issuer = certificate("issuer.example", KEYS["ec"], hashes.SHA256()).rstrip()
    pair.cert.write_bytes(pair.cert.read_bytes() + issuer[:-left_out])
    assert refusal(pair).endswith("it is cut short")
    with pytest.raises(TLSFileError, match="cut short"):
        read_certificates(pair.cert)


def test_only_a_single_certificate_of_an_authority_lacks_something(
    pair: Pair, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    assert ServerTLS.load(pair.cert, pair.key).gap is None
    assert ServerTLS.load(*authority.issue("a.example")).gap is None
    # Self-issued, as the names are the same, but signed by another key.
    for name in ("a.example", "authority"):
        gap = ServerTLS.load(*authority.issue(name, alone=True)).gap
        assert gap is not None
        assert "\n" not in gap


def test_a_refusal_by_openssl_is_one_line(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's OpenSSL settings can be stricter than the service's."""

    def refuse(*_: object) -> None:
        raise SSL.Error([("SSL routines", "", "ca md too weak")])

    monkeypatch.setattr("envelope.credentials.tls._context", refuse)
    assert refusal(pair) == f"{pair.cert} cannot be used: ca md too weak"


def test_twisted_serves_with_it(pair: Pair) -> None:
    """Through Twisted's TLS layer, with a client that offers ALPN."""
    heard: list[bytes] = []

    class Listener(Protocol):
        def dataReceived(self, data: bytes) -> None:
            heard.append(data)

    factory = TLSMemoryBIOFactory(
        ServerTLS.load(pair.cert, pair.key), False, Factory.forProtocol(Listener), Clock()
    )
    protocol = factory.buildProtocol(None)
    transport = StringTransport()
    protocol.makeConnection(transport)
    peer = client(alpn=[b"h2", b"http/1.1"])
    for _ in range(2):
        with suppress(SSL.WantReadError):
            peer.do_handshake()
        pass_on(peer, protocol, transport)
    peer.send(b"GET /")
    pass_on(peer, protocol, transport)
    assert heard == [b"GET /"]


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_the_services_own_layer_answers_and_closes(pair: Pair, version: int) -> None:
    """What is written is sent in the same call, and close_notify at the end."""

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)

    tls = ServerTLS.load(pair.cert, pair.key)
    service = TLSFactory(tls, False, Factory.forProtocol(Echo), Clock()).buildProtocol(None)
    transport = StringTransport()
    service.makeConnection(transport)
    peer = client(version)
    for _ in range(2):
        with suppress(SSL.WantReadError):
            peer.do_handshake()
        pass_on(peer, service, transport)
    peer.do_handshake()
    for word in (b"first", b"second"):
        peer.send(word)
        assert pass_on(peer, service, transport)
        assert peer.recv(65536) == word
    service.loseConnection()
    peer.bio_write(transport.value())
    with pytest.raises(SSL.ZeroReturnError):
        peer.recv(65536)
