"""TLS for the service's own socket: one certificate, replaced without closing connections.

The settings are Mozilla's (https://wiki.mozilla.org/Security/Server_Side_TLS): "intermediate"
without its finite-field groups (TLS 1.2 and 1.3), or "modern" (TLS 1.3 alone). Both allow only
forward secrecy and authenticated encryption, and neither renegotiation, compression nor session
resumption. The server name (SNI) that a client asks for is ignored: there is one certificate, and
the client decides whether it accepts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import cryptography
import OpenSSL
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from envelope.credentials.pemfiles import (
    TLSFileError,
    missing_issuer,
    names_in,
    read_chain,
    read_key,
)
from envelope.credentials.validity import Validity

HTTP: Final = b"http/1.1"

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
# Mozilla's, best first. The first one resists quantum computers too; OpenSSL has it since 3.5.
_GROUPS = (b"X25519MLKEM768:X25519:prime256v1:secp384r1", b"X25519:prime256v1:secp384r1")


def _find_groups() -> tuple[bytes | None, str | None]:
    """The first of `_GROUPS` that OpenSSL has, and, if there is none, a line for the log.

    OpenSSL's default goes beyond Mozilla's list, and pyOpenSSL 26 can set one curve only. The
    library below it has OpenSSL's call under its older name (SSL_CTX_set1_curves(3)).
    """
    context = SSL.Context(SSL.TLS_METHOD)
    library = getattr(SSL, "_lib", None)
    missing = [
        name for owner, name in (
            (library, "SSL_CTX_set1_curves_list"), (library, "ERR_clear_error"),
            (context, "_context"),
        ) if not hasattr(owner, name)
    ]
    for groups in () if missing else _GROUPS:
        if SSL._lib.SSL_CTX_set1_curves_list(context._context, groups) == 1:
            return groups, None
        SSL._lib.ERR_clear_error()
    why = f"{missing[0]} is missing" if missing else "no list of groups is accepted"
    return None, (
        f"TLS key exchange is limited to P-256: {why} (pyOpenSSL {OpenSSL.__version__}, "
        f"cryptography {cryptography.__version__}); install cryptography 47 or later"
    )


_groups, _limitation = _find_groups()


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """Makes each connection with the certificate that was loaded last.

    `paths` are its files. `validity` is that certificate's, and `names` are those that it proves.
    `gap` is one line if the file lacks its issuer, so that clients may be unable to verify it, else
    None. `limitation` is one line for the log if the key exchange is limited to P-256, else None.
    """

    limitation: Final = _limitation

    def __init__(self, cert: Path, key: Path, profile: Profile) -> None:
        self.paths = (cert, key)
        self._cert = cert
        self._key = key
        self._profile = profile
        self.reload()

    @classmethod
    def load(cls, cert: Path, key: Path, profile: Profile = "intermediate") -> ServerTLS:
        """Read a PEM chain, leaf first, and its private key; raise `TLSFileError`."""
        return cls(cert, key, profile)

    def reload(self) -> None:
        """Read both files again; if one raises `TLSFileError`, the old ones stay in use."""
        chain = read_chain(self._cert)
        key = read_key(self._key)
        if _spki(chain[0].public_key()) != _spki(key.public_key()):
            raise TLSFileError(
                f"{self._key} is not the key of the first certificate in {self._cert}"
            )
        try:
            context = _context(chain, key, self._profile)
        except (SSL.Error, crypto.Error) as error:
            raise TLSFileError(f"{self._cert} cannot be used: {reason_of(error)}") from None
        self._context = context
        self.gap = missing_issuer(chain, self._cert)
        self.names = names_in(chain[0])
        self.validity = Validity(chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol  # noqa: ARG002
    ) -> SSL.Connection:
        """See `IOpenSSLServerConnectionCreator`."""
        return SSL.Connection(self._context, None)


def _spki(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _context(chain: Sequence[x509.Certificate], key: Any, profile: Profile) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_LEAST_VERSION[profile])
    context.set_cipher_list(_TLS12_CIPHERS)
    if _groups is None:
        context.set_tmp_ecdh(ec.SECP256R1())
    else:
        SSL._lib.SSL_CTX_set1_curves_list(context._context, _groups)
    # A client connects once and stays for minutes, so resumption saves nothing, and a ticket key
    # that lives as long as the process would undo forward secrecy.
    context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # An open session sends nothing; without this it keeps 34 kB of buffers for its next record.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_alpn_select_callback(_select_protocol)
    context.use_certificate(chain[0])
    for certificate in chain[1:]:
        context.add_extra_chain_cert(certificate)
    context.use_privatekey(key)
    return context


def _select_protocol(_connection: SSL.Connection, offered: list[bytes]) -> Any:
    # A client that offers only other protocols is answered without ALPN, and may use HTTP/1.1.
    return HTTP if HTTP in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def reason_of(error: SSL.Error | crypto.Error) -> str:
    """OpenSSL's own message for an error, such as `certificate verify failed`."""
    queue = error.args[0] if error.args else []
    return str(queue[-1][-1]) if queue else "OpenSSL does not say why"
