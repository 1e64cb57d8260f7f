"""Numbers that look like a public key and protect nothing. Pure.

A message says what is wrong, and repeats nothing of the key.
"""

from __future__ import annotations

import math
from typing import Final

LEAST_RSA_BITS: Final = 2048
# OpenSSL's own limits: beyond them one check costs too much, so it refuses every signature.
MOST_RSA_BITS: Final = 16384
_MOST_EXPONENT_BITS: Final = 64
# Of all the small primes, those where being a power of 65537 says something.
_ROCA_PRIMES: Final = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
_FIELD: Final = 2**255 - 19
_EDWARDS_D: Final = -121665 * pow(121666, -1, _FIELD) % _FIELD
# One gcd with this finds every factor up to 10,000.
_SMALL_FACTORS: Final = math.factorial(10_000)
# Steps of Fermat's method: with two primes that were chosen apart it takes 2**500 and more.
_FERMAT_STEPS: Final = 100


def check_rsa(modulus: int, exponent: int) -> None:
    """RFC 7518 section 3.3, and what is known to break; raise `ValueError` with one line."""
    if modulus.bit_length() < LEAST_RSA_BITS:
        raise ValueError(f"an RSA key has fewer than {LEAST_RSA_BITS} bits")
    if modulus.bit_length() > MOST_RSA_BITS:
        raise ValueError(f"an RSA key has more than {MOST_RSA_BITS} bits")
    if exponent < 3 or exponent % 2 == 0:
        raise ValueError("an RSA key's exponent is even or too small")
    if exponent.bit_length() > _MOST_EXPONENT_BITS:
        raise ValueError("an RSA key's exponent is too large")
    if modulus % 2 == 0:
        raise ValueError("an RSA key's modulus is even")
    if _looks_like_roca(modulus):
        raise ValueError("an RSA key is weak (ROCA, CVE-2017-15361)")
    if math.gcd(modulus, _SMALL_FACTORS) != 1:
        raise ValueError("an RSA key's modulus has a small factor")
    if _primes_are_close(modulus):
        raise ValueError("an RSA key's primes are too close (CVE-2022-26320)")


def _primes_are_close(modulus: int) -> bool:
    """Fermat: n is a square less a square, and the first is close to n if the primes are close."""
    root = math.isqrt(modulus)
    for a in range(root, root + _FERMAT_STEPS):
        rest = a * a - modulus
        if rest >= 0 and math.isqrt(rest) ** 2 == rest:
            return True
    return False


def _looks_like_roca(modulus: int) -> bool:
    """Nemec et al. 2017: modulo each small prime, such a modulus is a power of 65537.

    A sound modulus passes for one once in 2**27.
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
    """RFC 8032 section 5.1.3, without the eight points of small order; raise `ValueError`.

    OpenSSL takes any 32 bytes; with a point of small order, signatures can be made without a key.
    """
    y = int.from_bytes(encoded, "little") & (1 << 255) - 1
    x_squared = (y * y - 1) * pow(_EDWARDS_D * y * y + 1, -1, _FIELD) % _FIELD
    if y >= _FIELD or pow(x_squared, (_FIELD - 1) // 2, _FIELD) not in (0, 1):
        raise ValueError("an Ed25519 key is no point of its curve")
    # Order 1 or 2: x is 0. Order 4: y is 0. Order 8: doubled, y is 0.
    if 0 in (x_squared, y, (_EDWARDS_D * y**4 + 2 * y * y - 1) % _FIELD):
        raise ValueError("an Ed25519 key is a point of small order")
