"""A JWK Set as somebody else publishes it: the keys that are good are taken, the rest is named.

A key file is the operator's own, and refused whole when a key in it is bad. A published set may
hold keys for other purposes, and future kinds of keys, which a reader has to pass over (RFC 7517
section 5). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from envelope.credentials.keys import (
    LONGEST_KID,
    Key,
    KeyFileError,
    KeyRing,
    members_of,
    public_key,
)

# Sets in the field have two to ten. Checking a key of RSA-4096 takes some 5 ms, in which the
# reactor does nothing else.
MOST_KEYS: Final = 50


@dataclass(frozen=True, slots=True)
class KeySet:
    """The good keys, and a line for each that was passed over."""

    keys: tuple[Key, ...]
    skipped: tuple[str, ...] = ()


def read_set(text: bytes, origin: str) -> KeySet:
    """Read a fetched set; raise `KeyFileError`, naming `origin`, when it gives no good key."""
    members = members_of(text, origin)
    if len(members) > MOST_KEYS:
        raise KeyFileError(origin, f"the set holds more than {MOST_KEYS} keys")
    good: dict[str, Key] = {}
    skipped: list[str] = []
    for member in members:
        try:
            key = public_key(member)
            if key.kid in good:
                raise ValueError("an earlier key bears the same kid")
        except ValueError as error:
            skipped.append(f"{_named(member.get('kid'))}: {error}")
        else:
            good[key.kid] = key
    if not good:
        raise KeyFileError(origin, f"no key in the set is usable ({skipped[0]})")
    return KeySet(tuple(good.values()), tuple(skipped))


def _named(kid: object) -> str:
    shown = isinstance(kid, str) and kid.isprintable() and 0 < len(kid) <= LONGEST_KID
    return f"key {kid!r}" if shown else "a key"


def merged(own: KeyRing, fetched: Iterable[Key]) -> tuple[KeyRing, tuple[str, ...]]:
    """Both together, and the kids that both have; of those the operator's own key counts."""
    fetched = tuple(fetched)
    shared = tuple(key.kid for key in fetched if key.kid in own)
    return KeyRing([*own.values(), *(key for key in fetched if key.kid not in own)]), shared
