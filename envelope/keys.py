"""The keys that tokens are checked with: public, strong, each with a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from jwcrypto import jwk
from jwcrypto.common import JWException

from envelope.strict import decode_base64url, decode_object

_ALGORITHMS: Final = {
    ("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256",
}
LEAST_RSA_BITS: Final = 2048
# Private or symmetric members (RFC 7518 section 6).
_SECRET: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)


class KeyFileError(Exception):
    """A key cannot be used; the text is one line naming the file and the reason."""


@dataclass(frozen=True, slots=True)
class Key:
    """One public key; `size` is its modulus in bytes for RSA, else 0."""

    kid: str
    algorithm: str
    jwk: Any
    size: int = 0


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Public keys by `kid`."""

    keys: Mapping[str, Key] = field(default_factory=dict)

    @classmethod
    def from_text(cls, text: bytes, origin: str) -> KeyRing:
        """Read a JWK or a JWK Set (RFC 7517); `origin` is named in a `KeyFileError`."""
        try:
            value = decode_object(text)
        except (ValueError, RecursionError) as error:
            raise KeyFileError(f"{origin}: not a JWK or JWK Set ({_short(error)})") from None
        members = value.get("keys", [value])
        if not isinstance(members, list) or not members:
            raise KeyFileError(f"{origin}: the set holds no keys")
        ring = cls()
        for member in members:
            try:
                if not isinstance(member, dict):
                    raise ValueError("a key is no JSON object")
                ring = ring.with_key(_key(member))
            except ValueError as error:
                raise KeyFileError(f"{origin}: {error}") from None
        return ring

    def with_key(self, key: Key) -> KeyRing:
        """This ring and one more key; raise `ValueError` when its `kid` is taken."""
        if key.kid in self.keys:
            raise ValueError("two keys bear the same kid")
        return KeyRing({**self.keys, key.kid: key})


def load_key_ring(paths: Iterable[Path]) -> KeyRing:
    """All keys of all files; raise `KeyFileError`."""
    ring = KeyRing()
    for path in paths:
        try:
            text = path.read_bytes()
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}") from None
        for key in KeyRing.from_text(text, str(path)).keys.values():
            try:
                ring = ring.with_key(key)
            except ValueError as error:
                raise KeyFileError(f"{path}: {error}") from None
    return ring


def _short(error: Exception) -> str:
    return "".join(c if c.isprintable() else " " for c in str(error))[:80]


def _key(member: dict[str, Any]) -> Key:
    kty, curve, kid = member.get("kty"), member.get("crv"), member.get("kid")
    if kty == "oct":
        raise ValueError("a symmetric key can sign what it verifies; a public one is needed")
    if _SECRET & member.keys():
        raise ValueError("a private key does not belong here; give its public half")
    if not isinstance(kid, str) or not kid:
        raise ValueError("a key without a kid cannot be named by a token")
    algorithm = _ALGORITHMS.get((str(kty), None if kty == "RSA" else str(curve)))
    if algorithm is None:
        raise ValueError("a key is neither Ed25519, P-256 nor RSA")
    if member.get("alg", algorithm) != algorithm:
        raise ValueError(f"a key's alg is not {algorithm}")
    if member.get("use", "sig") != "sig":
        raise ValueError("a key's use is not sig")
    if "verify" not in member.get("key_ops", ["verify"]):
        raise ValueError("a key's key_ops do not include verify")
    size = _check_rsa(member) if kty == "RSA" else 0
    try:
        made = jwk.JWK(**{name: member[name] for name in member if name != "key_ops"})
        made.get_op_key("verify")
    except (JWException, ValueError, TypeError, KeyError, AttributeError):
        raise ValueError("a key's numbers make no key") from None
    return Key(kid, algorithm, made, size)


def _check_rsa(member: dict[str, Any]) -> int:
    try:
        modulus = int.from_bytes(decode_base64url(member["n"]))
        exponent = int.from_bytes(decode_base64url(member["e"]))
    except (KeyError, TypeError, ValueError):
        raise ValueError("an RSA key's numbers cannot be read") from None
    if modulus.bit_length() < LEAST_RSA_BITS:
        raise ValueError(f"an RSA key has fewer than {LEAST_RSA_BITS} bits")
    if exponent < 3 or exponent % 2 == 0:
        raise ValueError("an RSA key's exponent is even or too small")
    if modulus % 2 == 0 or _looks_like_roca(modulus):
        raise ValueError("an RSA key is weak (ROCA, CVE-2017-15361)")
    return (modulus.bit_length() + 7) // 8


def _looks_like_roca(modulus: int) -> bool:
    """Nemec et al. 2017: modulo each small prime, such a modulus is a power of 65537."""
    for prime in _ROCA_PRIMES:
        powers, power = set(), 1
        while power not in powers:
            powers.add(power)
            power = power * 65537 % prime
        if modulus % prime not in powers:
            return False
    return True
