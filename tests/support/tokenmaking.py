"""Keys for tests, and tokens with valid signatures and any content."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwcrypto import jwk

from envelope.credentials.tokens import Claims, TokenExpectations, TokenRefusal, verify
from tests.support.keyrings import key_ring

# In the far future, so that a service with the real clock refuses an attack for no other reason.
NOW = 4_000_000_000.0
EXPECTED = TokenExpectations("locate", "mlab1")
KINDS: dict[str, dict[str, Any]] = {
    "EdDSA": {"kty": "OKP", "crv": "Ed25519"}, "ES256": {"kty": "EC", "crv": "P-256"},
    "RS256": {"kty": "RSA", "size": 2048},
}
KEYS = {alg: jwk.JWK.generate(kid=alg, alg=alg, use="sig", **how) for alg, how in KINDS.items()}
PUBLIC_SET = json.dumps({"keys": [key.export_public(as_dict=True) for key in KEYS.values()]})
RING = key_ring(PUBLIC_SET)
GOOD = {"iss": "locate", "aud": ["mlab1"], "sub": "ndt", "exp": NOW + 60, "jti": "j"}
PAYLOAD = json.dumps(GOOD).encode()
STRANGER = jwk.JWK.generate(kty="OKP", crv="Ed25519")


def b64(raw: bytes | str) -> str:
    """Encode base64url without padding."""
    raw = raw.encode() if isinstance(raw, str) else raw
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Decode base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def raw_signature(text: bytes, alg: str, key: jwk.JWK | None = None) -> bytes:
    """The signature of `text` with `alg` (RFC 7518 section 3, RFC 8037 section 3)."""
    private: Any = (key or KEYS[alg]).get_op_key("sign")
    if alg == "EdDSA":
        return bytes(private.sign(text))
    if alg == "RS256":
        return bytes(private.sign(text, padding.PKCS1v15(), hashes.SHA256()))
    r, s = decode_dss_signature(private.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def signed_as_is(
    header: bytes | str, payload: bytes, alg: str = "EdDSA", key: jwk.JWK | None = None
) -> str:
    """A token of this header and payload with a valid signature, by `key` or the key of `alg`."""
    core = f"{b64(header)}.{b64(payload)}"
    return f"{core}.{b64(raw_signature(core.encode(), alg, key))}"


def signed(payload: bytes | dict[str, Any], alg: str = "EdDSA", /, **header: object) -> str:
    """A token with a valid signature; `header` adds header parameters or replaces them."""
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return signed_as_is(json.dumps({"alg": alg, "kid": alg, **header}), raw, alg)


def judge(token: str, expected: TokenExpectations = EXPECTED) -> Claims | TokenRefusal:
    """The service's verdict on a token at `NOW`."""
    return verify(token, RING, expected, NOW)


def reason(token: str) -> str:
    """Why a token is refused at `NOW`, or "taken"."""
    verdict = judge(token)
    return verdict.reason if isinstance(verdict, TokenRefusal) else "taken"
