"""Files for the service and its clients: certificate, keys, and many tokens."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

MACHINE, SUBJECT, KID = "mlab1.example", "ndt", "bench"
# In a long run each token is used more than once; the service verifies it every time.
TOKENS = 1000
_LIFE = 3600


def write_credentials(folder: Path) -> None:
    """Write cert.pem, key.pem (P-256), token.pub (a JWK) and tokens (one a line)."""
    _write_certificate(folder)
    private = ed25519.Ed25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    key = {"kty": "OKP", "crv": "Ed25519", "kid": KID, "alg": "EdDSA", "use": "sig",
           "x": _base64(raw)}
    (folder / "token.pub").write_text(json.dumps(key))
    (folder / "tokens").write_text("\n".join(_token(private, n) for n in range(TOKENS)))


def _token(private: ed25519.Ed25519PrivateKey, number: int) -> str:
    claims = {"iss": "locate", "aud": [MACHINE], "sub": SUBJECT,
              "exp": int(time.time()) + _LIFE, "jti": f"bench-{number}"}
    text = f"{_part({'alg': 'EdDSA', 'kid': KID})}.{_part(claims)}"
    return f"{text}.{_base64(private.sign(text.encode()))}"


def _part(value: dict[str, Any]) -> str:
    return _base64(json.dumps(value).encode())


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _write_certificate(folder: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, MACHINE)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(private.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(MACHINE)]), False)
        .sign(private, SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(private.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
