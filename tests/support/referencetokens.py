"""A second token verifier, after RFC 7515, 7519 and 8725, to compare the service's with.

It parses base64url, JSON, signature and claims by itself, without jwcrypto, `json` and `base64`.
The limits that the service adds (length, nesting, escapes, latest time) are named as such.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.support.referencejson import Unreadable, read_object

# Limits of the service, not of the RFCs.
LONGEST, DEEPEST, MOST_ESCAPES, FARTHEST = 8192, 16, 32, 1e12
_ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


def accepts(
    token: str, keys: Mapping[str, Any], issuer: str, machine: str, now: float
) -> bool:
    """Whether the token is valid at `now` (epoch seconds); `keys`: cryptography's, by `kid`."""
    try:
        claims = read_object(_payload(token, keys), DEEPEST)
        return _claims_hold(claims, issuer, machine, now)
    except Unreadable:
        return False


def _payload(token: str, keys: Mapping[str, Any]) -> bytes:
    parts = token.split(".")
    _require(len(token) <= LONGEST and len(parts) == 3)
    raw_header, payload, signature = (decode(part) for part in parts)
    _require(raw_header.count(b"\\") <= MOST_ESCAPES)
    header = read_object(raw_header, DEEPEST)
    # No extension is supported, so none may be critical (RFC 7515, 4.1.11) or change the meaning.
    _require(not {"crit", "b64", "zip", "enc", "cty"} & set(header))
    _check_unused(header)
    kid, alg = header.get("kid"), header.get("alg")
    _require(isinstance(kid, str) and isinstance(alg, str) and kid in keys)
    _require(_verifies(str(alg), keys[str(kid)], signature, ".".join(parts[:2]).encode()))
    return payload


def _check_unused(header: dict[str, Any]) -> None:
    """What names or holds a key is not used, but has to be what RFC 7515 says it is."""
    # 4.1.2, 4.1.5, 4.1.7, 4.1.8 and 4.1.9: texts. 4.1.6: a list of texts.
    for name in ("jku", "x5u", "x5t", "x5t#S256", "typ"):
        _require(type(header.get(name, "")) is str)
    certificates = header.get("x5c", [])
    _require(type(certificates) is list and {type(each) for each in certificates} <= {str})
    # 4.1.3: a public key. RFC 7518 (6.2.2, 6.3.2 and 6.4), RFC 8037 (2) and IANA name the others'
    # members.
    key = header.get("jwk", {})
    _require(type(key) is dict and key.get("kty") != "oct")
    for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"):
        _require(name not in key)


def decode(text: str) -> bytes:
    """Decode base64url (RFC 4648 section 5) without padding; unused bits must be zero."""
    _require(bool(text) and set(text) <= set(_ALPHABET))
    bits = 0
    for letter in text:
        bits = bits << 6 | _ALPHABET.index(letter)
    spare = len(text) * 6 % 8
    _require(spare < 6 and bits & (1 << spare) - 1 == 0)
    return (bits >> spare).to_bytes(len(text) * 6 // 8)


def _verifies(alg: str, key: Any, signature: bytes, text: bytes) -> bool:
    """One algorithm for one kind of key (RFC 8725 section 3.1)."""
    try:
        if alg == "EdDSA" and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, text)
        elif alg == "ES256" and isinstance(key, ec.EllipticCurvePublicKey):
            _require(len(signature) == 64)
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            key.verify(encode_dss_signature(r, s), text, ec.ECDSA(hashes.SHA256()))
        elif alg == "RS256" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _claims_hold(claims: dict[str, Any], issuer: str, machine: str, now: float) -> bool:
    audience = claims.get("aud", ())
    names = [audience] if isinstance(audience, str) else audience
    _require(isinstance(names, list | tuple))
    for text in (*names, *(claims[name] for name in ("iss", "sub", "jti") if name in claims)):
        # A single surrogate is not a character (RFC 7493 section 2.1).
        _require(isinstance(text, str) and not any("\ud800" <= c <= "\udfff" for c in text))
    for name in {"exp", "nbf", "iat"} & set(claims):
        _require(type(claims[name]) is float and -FARTHEST <= claims[name] <= FARTHEST)
    return (
        claims.get("iss") == issuer
        and machine in names
        and now < claims.get("exp", now + 1)
        and claims.get("nbf", now) <= now
        and claims.get("iat", now) <= now
    )


def _require(holds: bool) -> None:
    if not holds:
        raise Unreadable("not as it must be")
