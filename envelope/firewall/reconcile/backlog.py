"""Which networks' rules have to be changed, and which of them make trouble. Pure.

Those of a transaction that failed are suspects: tried alone from then on, until they succeed, so
that one which the kernel does not take fails by itself. A suspect that failed alone is postponed:
it waits for the next retry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Final

from envelope.firewall.kernel import EVERYONE, Key


class Backlog:
    """The networks to be changed; first come, first served."""

    def __init__(self) -> None:
        # A dict for its order.
        self._changed: dict[Key, None] = {}
        self._suspects: set[Key] = set()
        self._postponed: set[Key] = set()
        # Transactions in a row that may have left others waiting.
        self._overtaken = 0

    def __bool__(self) -> bool:
        return bool(self._changed)

    @property
    def is_waiting(self) -> bool:
        """Whether anything is postponed."""
        return bool(self._postponed)

    def add(self, key: Key) -> None:
        """Something is wanted of this network."""
        self._changed[key] = None

    def surprising(self, differing: set[Key]) -> set[Key]:
        """Those of these networks of which it is a surprise that their rules are not as wanted."""
        return differing - self._changed.keys() - self._suspects

    def take(self, eager: Iterable[Key], apart: bool = False) -> set[Key]:
        """The next transaction's networks, chosen by `next_batch`; nobody is overtaken for ever."""
        apart = apart and self._overtaken < MOST_OVERTAKEN
        keys = next_batch(self._changed, self._suspects, eager, apart)
        for key in keys:
            del self._changed[key]
        self._overtaken = self._overtaken + 1 if apart and self._changed else 0
        return keys

    def take_differing(self, differing: set[Key]) -> set[Key]:
        """The same after a look at the kernel, which found all of these not as wanted.

        What others did is mended in one transaction, however much it is.
        """
        keys = differing - self._suspects
        self._changed = dict.fromkeys(
            key for key in (*self._changed, *(differing & self._suspects))
            if key not in keys and key not in self._postponed
        )
        return keys

    def succeeded(self, keys: set[Key]) -> None:
        """A transaction was applied."""
        self._suspects -= keys
        self._postponed -= keys

    def failed(self, keys: set[Key], at_length: bool = False) -> set[Key]:
        """A transaction was not; returns those that are postponed, all others are tried alone.

        That is a suspect, and also one that was alone from the first if it failed `at_length`:
        others would have to wait for as long again.
        """
        alone = len(keys) == 1 and (at_length or keys <= self._suspects)
        self._suspects |= keys
        if alone:
            self._postponed |= keys
            return keys
        self._changed.update(dict.fromkeys(keys))
        return set()

    def put_off(self, key: Key) -> None:
        """Do nothing about a postponed network before the next retry."""
        self._changed.pop(key, None)

    def suspect(self, keys: set[Key]) -> None:
        """These were in a transaction that failed, after a look."""
        self._suspects |= keys

    def trust(self) -> None:
        """All is well: nobody is suspected."""
        self._suspects.clear()

    def retry(self) -> None:
        """Try those again that were postponed."""
        self._changed.update(dict.fromkeys(self._postponed))
        self._postponed.clear()


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
