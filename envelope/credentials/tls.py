"""TLS for the service's own socket: one current certificate, replaced while connections live on.

The settings are Mozilla's (https://wiki.mozilla.org/Security/Server_Side_TLS): "intermediate"
without its finite-field groups, TLS 1.2 and 1.3, or "modern", TLS 1.3 alone. Both have forward
secrecy and authenticated encryption only, no renegotiation, no compression, and never resume a
session. A client is served whatever server name (SNI) it asks for, and without one: there is one
certificate, and the client judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from envelope.credentials.validity import Validity

HTTP: Final = b"http/1.1"
LEAST_RSA_BITS: Final = 2048
LEAST_CURVE_BITS: Final = 256

Profile: TypeAlias = Literal["intermediate", "modern"]
_LEAST_VERSION: Final = {"intermediate": SSL.TLS1_2_VERSION, "modern": SSL.TLS1_3_VERSION}

_TLS12_CIPHERS = b":".join([
    b"ECDHE-ECDSA-AES128-GCM-SHA256",
    b"ECDHE-RSA-AES128-GCM-SHA256",
    b"ECDHE-ECDSA-AES256-GCM-SHA384",
    b"ECDHE-RSA-AES256-GCM-SHA384",
    b"ECDHE-ECDSA-CHACHA20-POLY1305",
    b"ECDHE-RSA-CHACHA20-POLY1305",
])
# Mozilla's, best first. The first is safe from quantum computers too; OpenSSL has it since 3.5.
_GROUPS = (b"X25519MLKEM768:X25519:prime256v1:secp384r1", b"X25519:prime256v1:secp384r1")


class TLSFileError(Exception):
    """A certificate or key that cannot be used; the text is one line naming the file."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes each connection from the certificate that is current at that moment.

    `validity` is from when until when that is valid.
    """

    def __init__(self, cert: Path, key: Path, profile: Profile) -> None:
        self._cert = cert
        self._key = key
        self._profile = profile
        self.reload()

    @classmethod
    def load(cls, cert: Path, key: Path, profile: Profile = "intermediate") -> ServerTLS:
        """Read a PEM chain, leaf first, and its private key; raise `TLSFileError`."""
        return cls(cert, key, profile)

    def reload(self) -> None:
        """Read both files again; raise `TLSFileError`, and then the old ones stay in use."""
        chain = _read_chain(self._cert)
        key = _read_key(self._key)
        if _spki(chain[0].public_key()) != _spki(key.public_key()):
            raise TLSFileError(
                f"{self._key} is not the key of the first certificate in {self._cert}"
            )
        try:
            context = _context(chain, key, self._profile)
        except SSL.Error as error:
            raise TLSFileError(f"{self._cert} cannot be used: {reason_of(error)}") from None
        self._context = context
        self.validity = Validity(chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol  # noqa: ARG002
    ) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator`."""
        return SSL.Connection(self._context, None)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TLSFileError(f"{path} cannot be read: {error.strerror}") from None


def read_certificates(path: Path) -> list[x509.Certificate]:
    """One or more certificates in PEM; raise `TLSFileError`."""
    try:
        return x509.load_pem_x509_certificates(_read(path))
    except (ValueError, UnsupportedAlgorithm):
        raise TLSFileError(f"{path} is not a chain of certificates in PEM format") from None


def _read_chain(path: Path) -> list[x509.Certificate]:
    chain = read_certificates(path)
    try:
        public = chain[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise TLSFileError(f"{path} has a kind of key that cannot be read") from None
    if isinstance(public, rsa.RSAPublicKey):
        least = LEAST_RSA_BITS
    elif isinstance(public, ec.EllipticCurvePublicKey):
        least = LEAST_CURVE_BITS
    elif isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return chain
    else:
        raise TLSFileError(f"{path} has a kind of key that TLS clients do not accept")
    if public.key_size < least:
        raise TLSFileError(
            f"{path} has a key of {public.key_size} bits; less than {least} is too weak"
        )
    return chain


def _read_key(path: Path) -> Any:
    try:
        return load_pem_private_key(_read(path), None)
    except TypeError:
        raise TLSFileError(f"{path} is encrypted; a key without passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TLSFileError(f"{path} is not a private key in PEM format") from None


def _spki(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _context(chain: Sequence[x509.Certificate], key: Any, profile: Profile) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_LEAST_VERSION[profile])
    context.set_cipher_list(_TLS12_CIPHERS)
    _choose_groups(context)
    # A client comes once and stays for minutes: there is nothing to resume, and a ticket key that
    # lives as long as the process would undo forward secrecy.
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # Held sessions are silent; without this each keeps 34 kB of buffers for its next record.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_alpn_select_callback(_select_protocol)
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(key)
    return context


def _choose_groups(context: Any) -> None:
    # OpenSSL's own choice goes beyond Mozilla's, and pyOpenSSL 26 can name only one curve. What it
    # is made of knows OpenSSL's call, by its older name (SSL_CTX_set1_curves(3)).
    choose: Any = getattr(SSL._lib, "SSL_CTX_set1_curves_list", lambda _context, _groups: 0)
    for groups in _GROUPS:
        if choose(context._context, groups) == 1:
            return
        SSL._lib.ERR_clear_error()
    context.set_tmp_ecdh(ec.SECP256R1())


def _select_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # Whoever offers only something else is answered without ALPN, and may still speak HTTP/1.1.
    return HTTP if HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def reason_of(error: SSL.Error) -> str:
    """OpenSSL's own words for what went wrong, as in `certificate verify failed`."""
    queue = error.args[0] if error.args else []
    return str(queue[-1][-1]) if queue else "OpenSSL does not say why"
