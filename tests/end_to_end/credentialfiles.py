"""Files that a service needs (certificate, key, verification key), and tokens for it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from jwcrypto import jwk, jws

MACHINE, SUBJECT = "mlab1.example", "ndt"


def write_certificate(folder: Path) -> None:
    """Write a self-signed certificate, `cert.pem`, and its key, `key.pem`, into `folder`."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name)
        .public_key(private.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=60))
        .add_extension(x509.SubjectAlternativeName(
            [x509.IPAddress(ip_address("203.0.113.1"))]), False)
        .sign(private, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(private.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def make_key(folder: Path) -> jwk.JWK:
    """Make a key that signs tokens, write its public half to `key.pub`, and return it."""
    key = jwk.JWK.generate(kty="OKP", crv="Ed25519", kid="test", alg="EdDSA", use="sig")
    (folder / "key.pub").write_text(key.export_public())
    return key


def sign(key: jwk.JWK, lasts: float = 60, **claims: Any) -> str:
    """An access token that expires in `lasts` seconds; a claim of None is left out."""
    payload = {"iss": "locate", "aud": [MACHINE], "sub": SUBJECT, "exp": time.time() + lasts,
               "jti": "one", **claims}
    payload = {name: value for name, value in payload.items() if value is not None}
    signed = jws.JWS(json.dumps(payload).encode())
    header = {"alg": "EdDSA", "kid": key.get("kid", "test")}
    signed.add_signature(key, None, json.dumps(header))
    return str(signed.serialize(compact=True))
