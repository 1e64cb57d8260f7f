"""Reads certificates and private keys in PEM."""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
)

from envelope.credentials.files import MOST_BYTES, read_file
from envelope.text import printable

LEAST_RSA_BITS: Final = 2048
LEAST_CURVE_BITS: Final = 256
_BLOCK_BEGINS: Final = b"-----BEGIN"
_BLOCK_END: Final = re.compile(rb"-----END [A-Z0-9 ]+-----")
_KEY_BLOCK: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----(.+?)-----END \1-----", re.DOTALL
)


class TLSFileError(Exception):
    """A certificate or key cannot be used; the text is one line that names the file."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


def _read(path: Path) -> bytes:
    try:
        content = read_file(path)
    except OSError as error:
        raise TLSFileError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise TLSFileError(f"{path} is larger than {MOST_BYTES} bytes")
    return content


def read_certificates(path: Path) -> list[x509.Certificate]:
    """One or more certificates in PEM; raise `TLSFileError`."""
    text = _read(path)
    # A block that is cut short would be left out without a word.
    if text.count(_BLOCK_BEGINS) != len(_BLOCK_END.findall(text)):
        raise TLSFileError(f"{path} is not a chain of certificates in PEM format: it is cut short")
    try:
        return x509.load_pem_x509_certificates(text)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise TLSFileError(f"{path} is not a chain of certificates in PEM format") from None


def read_chain(path: Path) -> list[x509.Certificate]:
    """A chain whose first certificate has a strong key; raise `TLSFileError`."""
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


def names_in(certificate: x509.Certificate) -> tuple[str, ...]:
    """The DNS names and addresses that a certificate proves; none when they cannot be read."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (
        x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, ValueError
    ):
        return ()
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return (*map(printable, (*found.get_values_for_type(x509.DNSName), *addresses)),)


def missing_issuer(chain: Sequence[x509.Certificate], path: Path) -> str | None:
    """One line if `chain`, read from `path`, lacks the issuer of its first certificate.

    The others may be in any order (RFC 8446 section 4.4.2).
    """
    if any(_is_signed(chain[0], by) for by in chain):
        return None
    what = "one certificate" if len(chain) == 1 else f"{len(chain)} certificates"
    signed = "it" if len(chain) == 1 else "the first"
    return (
        f"{path} holds {what}, and not the one of the authority that signed {signed}: clients "
        "that do not have that one refuse it (give the whole chain, as in fullchain.pem)"
    )


def _is_signed(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except Exception:  # cryptography raises many kinds
        return False
    return True


def read_key(path: Path) -> Any:
    """A private key without passphrase: PKCS #8, PKCS #1 or SEC 1; raise `TLSFileError`."""
    text = _read(path)
    try:
        try:
            return load_pem_private_key(text, None)
        except ValueError:
            # The label and the content may be of different formats. The content tells which it is.
            block = _KEY_BLOCK.search(text)
            if block is None:
                raise
            return load_der_private_key(binascii.a2b_base64(block[2]), None)
    except TypeError:
        raise TLSFileError(f"{path} is encrypted; a key without passphrase is needed") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TLSFileError(f"{path} is not a private key in PEM format") from None
