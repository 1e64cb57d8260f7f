"""Certificates for tests: an authority and the certificates that it signs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """A certificate authority; `path` is the file of its certificate, in `folder`."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.path = folder / f"{name}.pem"
        now = datetime.now(UTC)
        made = (
            self._builder(name, self._key, now - timedelta(days=1), now + timedelta(days=300))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, True, True, False, False), True
            )
            .sign(self._key, hashes.SHA256())
        )
        self.path.write_bytes(made.public_bytes(Encoding.PEM))

    def _builder(
        self, name: str, key: Any, begin: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        identifier = x509.SubjectKeyIdentifier.from_public_key
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name)).issuer_name(_name(self._name))
            .public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(begin).not_valid_after(end)
            .add_extension(identifier(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
        )

    def issue(
        self, *names: str, begins: float = -1.0, ends: float = 60.0, key: Any = None,
        stem: str = "leaf", alone: bool = False, common_name_alone: bool = False,
    ) -> tuple[Path, Path]:
        """Sign a certificate for `names`; returns the files of its chain and private key.

        It is valid from `begins` to `ends`, in days from now. With `alone` the chain lacks the
        authority. With `common_name_alone` only the subject has the first name, as long ago.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = self._builder(
            names[0], key, now + timedelta(days=begins), now + timedelta(days=ends)
        )
        if not common_name_alone:
            alternatives = [_alternative(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        made = (
            builder
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
            .sign(self._key, hashes.SHA256())
        )
        cert, private = self._folder / f"{stem}.pem", self._folder / f"{stem}.key"
        chain = b"" if alone else self.path.read_bytes()
        cert.write_bytes(made.public_bytes(Encoding.PEM) + chain)
        private.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return cert, private
