"""The public keys that tokens are verified with, each with its own `kid`.

Weak keys are refused when they are read. No message repeats any part of a key but its kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from jwcrypto import jwk

from envelope.credentials.files import MOST_BYTES, read_file
from envelope.credentials.strictjson import decode_base64url, decode_object
from envelope.credentials.weakkeys import UnsafeKey, check_ed25519, check_rsa
from envelope.text import printable

_ALGORITHMS: Final = {
    ("OKP", "Ed25519"): "EdDSA", ("EC", "P-256"): "ES256", ("RSA", None): "RS256",
}
# The members that make up a public key (RFC 7518 section 6, RFC 8037 section 2).
_PUBLIC: Final = {"OKP": ("crv", "x"), "EC": ("crv", "x", "y"), "RSA": ("n", "e")}
# Members of private and symmetric keys (RFC 7518 section 6, RFC 8037 section 2), and of the private
# keys of post-quantum algorithms (kty AKP in IANA's registry "JSON Web Key Parameters").
_SECRET: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"))
# Characters. A token of at most 8 kB has no room for much more.
LONGEST_KID: Final = 256


class KeyFileError(Exception):
    """A key cannot be used; the text is one line: `origin` (a file or a URL) and the reason."""

    def __init__(self, origin: object, reason: str) -> None:
        self.reason = reason
        super().__init__(printable(f"{origin}: {reason}"))


@dataclass(frozen=True, slots=True)
class Key:
    """One public key, ready for use; `jwk` is a jwcrypto JWK, `signature_size` is in bytes."""

    kid: str
    alg: str
    jwk: Any
    signature_size: int = 64

    @property
    def identity(self) -> tuple[str, str]:
        """Its `kid` and its thumbprint (RFC 7638): the same for the same key, read again."""
        return self.kid, self.jwk.thumbprint()


class KeyRing(Mapping[str, Key]):
    """Public keys by `kid`; immutable."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        """Raise `ValueError` when two keys share a `kid`."""
        ring: dict[str, Key] = {}
        for key in keys:
            if key.kid in ring:
                raise ValueError("two keys have the same kid")
            ring[key.kid] = key
        self._keys = MappingProxyType(ring)

    def __getitem__(self, kid: str) -> Key:
        return self._keys[kid]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def read_key_file(path: Path) -> bytes:
    """The content of a key file; raise `KeyFileError`."""
    try:
        return read_file(path)
    except OSError as error:
        raise KeyFileError(path, error.strerror or "cannot be read") from None


def members_of(text: bytes, origin_name: str) -> list[dict[str, Any]]:
    """The JWKs in a JWK or JWK Set (RFC 7517), unchecked; raise `KeyFileError`."""
    return decode_keys(text, origin_name)[0]


def decode_keys(text: bytes, origin_name: str) -> tuple[list[dict[str, Any]], bool]:
    """The JWKs in a JWK or JWK Set, unchecked, and whether it is a set; raise `KeyFileError`."""
    if len(text) > MOST_BYTES:
        raise KeyFileError(origin_name, f"larger than {MOST_BYTES} bytes")
    try:
        value = decode_object(text)
    except (ValueError, RecursionError) as error:
        raise KeyFileError(origin_name, f"not a JWK or JWK Set ({str(error)[:80]})") from None
    members = value.get("keys", [value])
    if not isinstance(members, list) or not members:
        raise KeyFileError(origin_name, "the set holds no keys")
    if not all(isinstance(member, dict) for member in members):
        raise KeyFileError(origin_name, "a key is not a JSON object")
    return members, "keys" in value


def is_secret(member: Mapping[str, Any]) -> bool:
    """Whether a JWK is a private or symmetric key."""
    return member.get("kty") == "oct" or not _SECRET.isdisjoint(member)


def public_half(member: dict[str, Any]) -> dict[str, Any]:
    """The members of a JWK that a verifier needs, none of them secret.

    Raises `UnsafeKey` for a symmetric key, which has no public half.
    """
    kty = member.get("kty")
    if kty == "oct":
        raise UnsafeKey("a symmetric key can sign what it verifies; give a public key")
    numbers = _PUBLIC.get(str(kty), ())
    return {
        name: member[name] for name in ("kty", *numbers, "kid", "alg", "use") if name in member
    }


def public_key(member: dict[str, Any]) -> Key:
    """Check one JWK and make it ready for use.

    Raises `ValueError` with a one-line reason: `UnsafeKey` for a weak, private or symmetric key.
    """
    kty, curve, kid = member.get("kty"), member.get("crv"), member.get("kid")
    public = public_half(member)
    if is_secret(member):
        raise UnsafeKey("a private key does not belong here; give its public half")
    # The log shows kids.
    if not isinstance(kid, str) or not kid or not kid.isprintable():
        raise ValueError("a key has no printable kid, so no token can name it")
    if len(kid) > LONGEST_KID:
        raise ValueError(f"a key's kid is longer than {LONGEST_KID} characters")
    alg = _ALGORITHMS.get((str(kty), None if kty == "RSA" else str(curve)))
    if alg is None:
        raise ValueError("a key is neither Ed25519, P-256 nor RSA")
    if member.get("alg", alg) != alg:
        raise ValueError(f"a key's alg is not {alg}")
    if member.get("use", "sig") != "sig":
        raise ValueError("a key's use is not sig")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("a key's key_ops do not include verify")
    size = 64
    try:
        numbers = [decode_base64url(public[name]) for name in _PUBLIC[str(kty)] if name != "crv"]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"the numbers of a key for {alg} cannot be read") from None
    if kty == "RSA":
        modulus, exponent = map(int.from_bytes, numbers)
        check_rsa(modulus, exponent)
        size = (modulus.bit_length() + 7) // 8
    elif any(len(number) != 32 for number in numbers):
        raise ValueError(f"the numbers of a key for {alg} are not 32 bytes long")
    elif kty == "OKP":
        check_ed25519(numbers[0])
    try:
        made = jwk.JWK(**public)
        # jwcrypto makes the key only now, and OpenSSL checks that its point is on the curve.
        made.get_op_key("verify")
    except Exception:  # jwcrypto and cryptography raise many kinds
        raise ValueError(f"the numbers of a key for {alg} are not those of a valid key") from None
    return Key(kid, alg, made, size)
