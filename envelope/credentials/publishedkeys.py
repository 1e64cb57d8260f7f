"""Reads a JWK Set: takes the usable keys, and gives a reason for each of the others. Pure.

A set may hold keys for other purposes and of future kinds, which a reader should ignore (RFC 7517
section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from envelope.credentials.keys import (
    LONGEST_KID,
    Key,
    KeyFileError,
    KeyRing,
    members_of,
    public_key,
)

# Sets in the field have two to ten. Checking an RSA-4096 key blocks the reactor for some 5 ms.
MOST_KEYS: Final = 50
# Log lines about the unusable keys of one set.
MOST_LINES: Final = 10


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys, and a line for each of the others."""

    keys: tuple[Key, ...]
    skipped: tuple[str, ...] = ()


def read_set(text: bytes, origin: str) -> KeySet:
    """Read a fetched set; raise `KeyFileError`, naming `origin`, if it has no usable key."""
    members = members_of(text, origin)
    if len(members) > MOST_KEYS:
        raise KeyFileError(origin, f"the set holds more than {MOST_KEYS} keys")
    return read_members(members, origin)


def read_members(
    members: Iterable[dict[str, Any]], origin: str, refuse: tuple[type[ValueError], ...] = ()
) -> KeySet:
    """The usable keys of a set; raise `KeyFileError`, naming `origin`, if there is none.

    With `refuse`, a key that raises one of these errors refuses the whole set, and so do two usable
    keys with the same `kid`. Without it, the first of these is used.
    """
    good: dict[str, Key] = {}
    skipped: list[str] = []
    for member in members:
        try:
            key = public_key(member)
            if key.kid in good:
                raise _SameKid("an earlier key has the same kid")
        except ValueError as error:
            line = f"{_named(member.get('kid'))}: {error}"
            if refuse and isinstance(error, (*refuse, _SameKid)):
                raise KeyFileError(origin, line) from None
            skipped.append(line)
        else:
            good[key.kid] = key
    if not good:
        raise KeyFileError(origin, f"no key in the set is usable ({skipped[0]})")
    return KeySet(tuple(good.values()), tuple(skipped))


class _SameKid(ValueError):
    pass


def summary(origin: str, skipped: Sequence[str]) -> list[str]:
    """Lines for the log about the keys of a set that were passed over."""
    lines = [f"passed over in {origin}: {line}" for line in skipped[:MOST_LINES]]
    if len(skipped) > MOST_LINES:
        lines.append(f"passed over {len(skipped) - MOST_LINES} more")
    return lines


def _named(kid: object) -> str:
    fits = isinstance(kid, str) and kid.isprintable() and 0 < len(kid) <= LONGEST_KID
    return f"key {kid!r}" if fits else "a key"


def merged(own: KeyRing, fetched: Iterable[Key]) -> tuple[KeyRing, tuple[str, ...]]:
    """All keys in one ring, and the kids that are in both; of those it takes the `own` key."""
    fetched = tuple(fetched)
    shared = tuple(key.kid for key in fetched if key.kid in own)
    return KeyRing([*own.values(), *(key for key in fetched if key.kid not in own)]), shared
