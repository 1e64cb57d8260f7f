"""Checks that refuse public keys with which signatures can be forged. Pure.

Messages name the weakness, and repeat no part of the key.
"""

from __future__ import annotations

import math
from typing import Final

LEAST_RSA_BITS: Final = 2048
# OpenSSL's own limits: it refuses every signature of larger keys, as a check would cost too much.
MOST_RSA_BITS: Final = 16384
_MOST_EXPONENT_BITS: Final = 64
# The small primes modulo which not every number is a power of 65537.
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_FIELD: Final = 2**255 - 19
_EDWARDS_D: Final = -121665 * pow(121666, -1, _FIELD) % _FIELD
# One gcd with this number finds every prime factor up to 10,000.
_SMALL_FACTORS: Final = math.factorial(10_000)
# Steps of Fermat's method. For two primes chosen independently it takes 2**500 and more.
_FERMAT_STEPS: Final = 100


class UnsafeKey(ValueError):
    """A key that must not be used at all: it is weak, or it is private or symmetric."""


def check_rsa(modulus: int, exponent: int) -> None:
    """Refuse keys against RFC 7518 section 3.3, and known weak ones; raise `UnsafeKey`.

    A key that is only too large for OpenSSL is a `ValueError`.
    """
    if modulus.bit_length() < LEAST_RSA_BITS:
        raise UnsafeKey(f"an RSA key has fewer than {LEAST_RSA_BITS} bits")
    if modulus.bit_length() > MOST_RSA_BITS:
        raise ValueError(f"an RSA key has more than {MOST_RSA_BITS} bits")
    if exponent < 3 or exponent % 2 == 0:
        raise UnsafeKey("an RSA key's exponent is even or too small")
    if exponent.bit_length() > _MOST_EXPONENT_BITS:
        raise ValueError("an RSA key's exponent is too large")
    if modulus % 2 == 0:
        raise UnsafeKey("an RSA key's modulus is even")
    if _looks_like_roca(modulus):
        raise UnsafeKey("an RSA key is weak (ROCA, CVE-2017-15361)")
    if math.gcd(modulus, _SMALL_FACTORS) != 1:
        raise UnsafeKey("an RSA key's modulus has a small factor")
    if _primes_are_close(modulus):
        raise UnsafeKey("an RSA key's primes are too close (CVE-2022-26320)")


def _primes_are_close(modulus: int) -> bool:
    """Fermat's method: n = a² - b², and a is just above the root of n if the primes are close."""
    root = math.isqrt(modulus)
    for a in range(root, root + _FERMAT_STEPS):
        rest = a * a - modulus
        if rest >= 0 and math.isqrt(rest) ** 2 == rest:
            return True
    return False


def _looks_like_roca(modulus: int) -> bool:
    """Nemec et al. 2017: modulo each small prime, a ROCA modulus is a power of 65537.

    One sound modulus in 2**27 is taken for a weak one.
    """
    for prime in _ROCA_PRIMES:
        powers, power = set(), 1
        while power not in powers:
            powers.add(power)
            power = power * 65537 % prime
        if modulus % prime not in powers:
            return False
    return True


def check_ed25519(encoded: bytes) -> None:
    """Refuse a point of small order (`UnsafeKey`) and what is no point (`ValueError`).

    OpenSSL accepts any 32 bytes (RFC 8032 section 5.1.3). For a point of small order anybody can
    make signatures.
    """
    y = int.from_bytes(encoded, "little") & (1 << 255) - 1
    x_squared = (y * y - 1) * pow(_EDWARDS_D * y * y + 1, -1, _FIELD) % _FIELD
    if y >= _FIELD or pow(x_squared, (_FIELD - 1) // 2, _FIELD) not in (0, 1):
        raise ValueError("an Ed25519 key is no point of its curve")
    # Order 1 or 2: x is 0. Order 4: y is 0. Order 8: y of the doubled point is 0.
    if 0 in (x_squared, y, (_EDWARDS_D * y**4 + 2 * y * y - 1) % _FIELD):
        raise UnsafeKey("an Ed25519 key is a point of small order")
