"""Which changes are sent now: the choice of one transaction's networks. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Final

from envelope.firewall.kernel import EVERYONE, Key

# Changes in one transaction. When thousands leave at once, nobody else waits for all of them, and
# the reactor is not held up by writing them down (2 us each).
MOST_AT_ONCE: Final = 512


# How often in a row comers may go ahead of everybody else.
MOST_OVERTAKEN: Final = 4


def next_batch(
    changed: Collection[Key], suspects: Collection[Key], eager: Iterable[Key], apart: bool = False
) -> set[Key]:
    """Of the networks that are to be changed (at least one), those of the next transaction.

    They come in the order of `changed`, but half of the transaction is for the `eager`, who wait
    to be let in, in their order. With `apart` it is theirs alone, if there are any, and
    everyone's (`--proxy-port`), who comes with the first. Suspects are taken alone, when nobody
    else is left.
    """
    ready = (key for key in eager if key in changed and key not in suspects)
    others = (key for key in changed if key not in suspects)
    if apart:
        comers = set(islice(ready, MOST_AT_ONCE))
        if comers:
            return comers.union(
                key for key in EVERYONE.values() if key in changed and key not in suspects
            )
    keys: set[Key] = set()
    for key in chain(islice(ready, MOST_AT_ONCE // 2), others):
        keys.add(key)
        if len(keys) == MOST_AT_ONCE:
            break
    return keys or {next(iter(changed))}
