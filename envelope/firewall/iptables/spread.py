"""Many grants, spread over chains, so that a packet is compared with few of their rules. Pure.

The kernel compares a packet with the rules of a chain one after the other. When there are many
grants, the last eight bits of the opened prefix lead to one of 256 chains, two bits at a time: at
most sixteen comparisons on the way, and a few in the last chain (1,000 grants in iptables-nft: 0.85
to 1 of the packets per second that pass without rules; all in one chain 0.4). Few grants stay in
one chain, which people can read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from envelope.firewall.iptables.rules import GRANTS
from envelope.firewall.kernel import Key, parts_of

# Above so many networks, grants are spread; with this few or fewer they move back into one chain.
# The two are far enough apart that visits do not move rules to and fro.
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
    """The chain of a network's rules when grants are spread; `EVERYONE` stays in the first."""
    packed, prefix = parts_of(key)
    if prefix == 0:
        return GRANTS
    bits = int.from_bytes(packed, "big") >> (8 * len(packed) - prefix)
    return _PREFIX + "".join(
        str(bits >> _BITS * level & _BRANCHES[-1]) for level in range(_LEVELS)
    )


@lru_cache(maxsize=4)
def branches(prefix: int, bits: int) -> dict[str, tuple[str, ...]]:
    """Each chain's rules that lead to further chains, the first chain's included; leaves have none.

    `prefix` is how many bits of an address a grant opens, `bits` how many it has (32 or 128).
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
    # From bytes: ip_address would take a small number for IPv4.
    return str(ip_address(number.to_bytes(bits // 8, "big")))
