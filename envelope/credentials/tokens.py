"""Verifies access tokens: takes a text, returns claims or a refusal. Pure; times have no leeway.

The format is checked here, since jwcrypto accepts more than RFC 7515 and 7519 allow. jwcrypto
checks the signature, with the one key that `kid` names and that key's one algorithm (RFC 8725
section 3.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from jwcrypto import jws

from envelope.credentials.claimsforlog import NO_CLAIMS, claims_for_log, text_for_log
from envelope.credentials.keys import Key, KeyRing, is_secret
from envelope.credentials.strictjson import decode_base64url, decode_object

# Characters.
LONGEST_TOKEN: Final = 8192
_ALGORITHMS: Final = ("EdDSA", "ES256", "RS256")
# Extensions, unencoded payloads (RFC 7797), and headers of encrypted or nested tokens.
_UNSUPPORTED: Final = ("crit", "b64", "zip", "enc", "cty")
# The types of header parameters that are not used here (RFC 7515 sections 4.1.2 to 4.1.9).
_UNUSED: Final = {
    "jku": str, "jwk": dict, "x5u": str, "x5c": list, "x5t": str, "x5t#S256": str, "typ": str,
}
# Anybody can send a header; scanning it takes time proportional to its length times this number.
_MOST_ESCAPES: Final = 32
# Seconds before and after the epoch: some 30,000 years. Sums of such times stay exact.
_FARTHEST: Final = 1e12


class TokenReason(StrEnum):
    """Why a token is refused: label `reason` of `controller_access_token_requests_total`."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    ALGORITHM = "algorithm"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    CLAIMS = "claims"
    # It is used up, or another network's (`--token-use`).
    REPLAYED = "replayed"


@dataclass(frozen=True, slots=True)
class TokenRefusal:
    """A token is refused."""

    reason: TokenReason


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims of a valid token (RFC 7519 section 4.1); times are seconds since the epoch.

    `token_id` stands for `jti`: 16 bytes, None without a `jti` or with an empty one. `jti` and
    `for_log`, the claims of `--log-claim`, are only what may be logged as it is
    (`envelope.credentials.claimsforlog`).
    """

    issuer: str
    subject: str | None
    audience: tuple[str, ...]
    expires: float | None
    not_before: float | None = None
    issued_at: float | None = None
    token_id: bytes | None = None
    jti: str | None = None
    for_log: Mapping[str, str | int | float] = field(default_factory=lambda: NO_CLAIMS)


@dataclass(frozen=True, slots=True)
class TokenExpectations:
    """What a token must say: its issuer, and the name in its audience (None: any audience).

    `log_claims` are the names of `--log-claim`. `digest_key` is a secret of at most 64 bytes, which
    `Claims.token_id` is made with: so nobody can look for two texts with one digest.
    """

    issuer: str
    machine: str | None
    log_claims: tuple[str, ...] = ()
    digest_key: bytes = b""


def verify(
    text: str, keys: KeyRing, expected: TokenExpectations, now: float
) -> Claims | TokenRefusal:
    """The claims of a valid token, or why it is refused; never raises.

    `now` is seconds since the epoch.
    """
    payload = verify_signature(text, keys)
    if isinstance(payload, TokenRefusal):
        return payload
    try:
        claims = _claims(decode_object(payload), expected)
    except (ValueError, RecursionError):
        return TokenRefusal(TokenReason.CLAIMS)
    if not claims.issuer or claims.issuer != expected.issuer:
        return TokenRefusal(TokenReason.ISSUER)
    if expected.machine is not None and expected.machine not in claims.audience:
        return TokenRefusal(TokenReason.AUDIENCE)
    if claims.expires is not None and claims.expires <= now:
        return TokenRefusal(TokenReason.EXPIRED)
    if any(begin is not None and begin > now for begin in (claims.not_before, claims.issued_at)):
        return TokenRefusal(TokenReason.NOT_YET_VALID)
    return claims


def verify_signature(text: str, keys: KeyRing) -> bytes | TokenRefusal:
    """The payload of a compact JWS (RFC 7515 section 7.1) signed with one of `keys`, or why not.

    Keys in the header, or that it points to (jwk, jku, x5c, x5u), are never used. A header whose
    `jwk` is not a public key is refused all the same: RFC 7515 section 4.1.3 forbids it.
    """
    if len(text) > LONGEST_TOKEN or text.count(".") != 2:
        return TokenRefusal(TokenReason.MALFORMED)
    try:
        raw_header, payload, signature = map(decode_base64url, text.split("."))
        if raw_header.count(b"\\") > _MOST_ESCAPES:
            return TokenRefusal(TokenReason.MALFORMED)
        header = decode_object(raw_header)
    except (ValueError, RecursionError):
        return TokenRefusal(TokenReason.MALFORMED)
    if not header.keys().isdisjoint(_UNSUPPORTED) or not _unused_are_proper(header):
        return TokenRefusal(TokenReason.MALFORMED)
    alg, kid = header.get("alg"), header.get("kid")
    if alg not in _ALGORITHMS:
        return TokenRefusal(TokenReason.ALGORITHM)
    key = keys.get(kid) if isinstance(kid, str) else None
    if key is None:
        return TokenRefusal(TokenReason.UNKNOWN_KEY)
    if alg != key.alg:
        return TokenRefusal(TokenReason.ALGORITHM)
    if len(signature) != key.signature_size or not _signed(text, key):
        return TokenRefusal(TokenReason.SIGNATURE)
    return payload


def _unused_are_proper(header: dict[str, Any]) -> bool:
    for name in header.keys() & _UNUSED:
        if not isinstance(header[name], _UNUSED[name]):
            return False
    certificates = header.get("x5c", ())
    return all(isinstance(each, str) for each in certificates) and not is_secret(
        header.get("jwk", {})
    )


# One object for all tokens: a new one copies jwcrypto's registry of headers, some 40 us, where a
# whole check takes 65 us (RS256) to 180 us (EdDSA). tests/credentials/test_tokens.py holds that
# nothing of a token stays in it.
_jws: Final = jws.JWS()


def _signed(text: str, key: Key) -> bool:
    try:
        _jws.deserialize(text)  # discards the token before
        _jws.allowed_algs = [key.alg]
        _jws.verify(key.jwk)
    except Exception:  # jwcrypto 1.6.1 raises many kinds
        return False
    return bool(_jws.is_valid)


def _claims(payload: dict[str, Any], expected: TokenExpectations) -> Claims:
    audience = payload.get("aud", [])
    if isinstance(audience, str):
        audience = [audience]
    if not isinstance(audience, list):
        raise ValueError("aud")
    for name in audience:
        _check_text(name)
    jti = _text(payload, "jti")
    return Claims(
        issuer=_text(payload, "iss") or "",
        subject=_text(payload, "sub"),
        audience=tuple(audience),
        expires=_time(payload, "exp"),
        not_before=_time(payload, "nbf"),
        issued_at=_time(payload, "iat"),
        token_id=_digest(jti, expected.digest_key) if jti else None,
        jti=text_for_log(jti),
        for_log=claims_for_log(payload, expected.log_claims),
    )


def _digest(jti: str, key: bytes) -> bytes:
    return hashlib.blake2b(jti.encode(), key=key, digest_size=16).digest()


def _text(payload: dict[str, Any], name: str) -> str | None:
    return _check_text(payload[name]) if name in payload else None


def _check_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    # Half a surrogate pair is no character: writing it anywhere would fail.
    value.encode()
    return value


def _time(payload: dict[str, Any], name: str) -> float | None:
    if name not in payload:
        return None
    value = payload[name]
    # A NumericDate is any number (RFC 7519 section 2): -1 is a second before the epoch.
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _FARTHEST:
        raise ValueError(name)
    return float(value)
