"""Many grants, spread over chains, so that a packet meets few of their rules. Pure.

A packet is compared with the rules of a chain one after the other: 1,000 of them in one
chain cost more than the whole rest of the way. So when there are many, the last eight bits
that a grant opens lead to one of 256 chains, two bits at a time: at most sixteen comparisons on
the way, and a few at its end (1,000 grants in iptables-nft: 0.85 to 1 of the packets per second
that pass without rules, 0.4 in one chain). Few stay in one chain, which people can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from envelope.firewall.iptables.rules import GRANTS
from envelope.firewall.kernel import Key, parts_of

# Networks in the one chain before they are spread, and how few there are when they come together
# again: far enough apart that a coming and going of clients does not move rules to and fro.
SPREAD_ABOVE: Final = 32
GATHER_BELOW: Final = 8

_BITS: Final = 2
_LEVELS: Final = 4
_BRANCHES: Final = range(1 << _BITS)
_PREFIX: Final = f"{GRANTS}-"


def is_branch(chain: str) -> bool:
    """Whether `chain` is one of those that grants are spread over."""
    digits = chain.removeprefix(_PREFIX)
    return (
        chain.startswith(_PREFIX) and 1 <= len(digits) <= _LEVELS and set(digits) <= set("0123")
    )


@lru_cache(maxsize=1 << 15)
def leaf(key: Key) -> str:
    """The chain that the rules of a network belong to when grants are spread.

    Those of all networks (`--proxy-port`) stay in the first chain.
    """
    packed, prefix = parts_of(key)
    if prefix == 0:
        return GRANTS
    bits = int.from_bytes(packed, "big") >> (8 * len(packed) - prefix)
    return _PREFIX + "".join(
        str(bits >> _BITS * level & _BRANCHES[-1]) for level in range(_LEVELS)
    )


@lru_cache(maxsize=4)
def branches(prefix: int, bits: int) -> dict[str, tuple[str, ...]]:
    """Each chain's rules that lead on, the first chain's among them; leaves have none.

    `prefix` is how much of an address grants open, `bits` how many an address has (32 or 128).
    """
    return dict(_branches(GRANTS, "", bits - prefix, bits))


def _branches(
    chain: str, digits: str, shift: int, bits: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    if len(digits) == _LEVELS:
        yield chain, ()
        return
    mask = _address(_BRANCHES[-1] << shift, bits)
    yield chain, tuple(
        f"-s {_address(branch << shift, bits)}/{mask} -j {_PREFIX}{digits}{branch}"
        for branch in _BRANCHES
    )
    for branch in _BRANCHES:
        further = f"{digits}{branch}"
        yield from _branches(_PREFIX + further, further, shift + _BITS, bits)


def _address(number: int, bits: int) -> str:
    # By the number of bytes: a small number alone would always be taken for IPv4.
    return str(ip_address(number.to_bytes(bits // 8, "big")))
