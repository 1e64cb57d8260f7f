"""Which networks' rules have to change, and which of them go into the next transaction. Pure.

The networks of a transaction that failed are suspects: from then on each is tried alone until it
succeeds, so that a change which the kernel does not take fails by itself. A suspect that failed
alone is postponed until the next retry. However many other changes come, a suspect has its turn
after `MOST_OVERTAKEN` transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Final

from envelope.firewall.kernel import Key

# Changes in one transaction. When thousands of clients leave at once, others do not wait for all of
# them, and writing the lines (2 us each) does not hold up the reactor.
MOST_AT_ONCE: Final = 512
# While several clients come and go, the next transaction gathers changes for so many turns of the
# reactor, or (seconds) for so long. With 16 clients at once that more than halves the number of
# transactions; each costs as much CPU time as a tenth of a visit (`python -m benchmarks --only
# coming`).
BUSY_TURNS: Final = 3
GATHER: Final = 0.002
# How many transactions in a row may hold no suspect while one waits.
MOST_OVERTAKEN: Final = 4


class Backlog:
    """The networks that are to be changed, in the order in which they were added."""

    def __init__(self) -> None:
        # A dict for its order.
        self._changed: dict[Key, None] = {}
        self._suspects: set[Key] = set()
        self._postponed: set[Key] = set()
        # Those of transactions that failed since the last look: the kernel may have applied them.
        self._uncertain: set[Key] = set()
        # How many networks the last transaction changed.
        self._taken = 0
        # Transactions in a row that may have left a suspect waiting.
        self._suspects_overtaken = 0

    def __bool__(self) -> bool:
        return bool(self._changed)

    @property
    def is_busy(self) -> bool:
        """Whether several clients come and go: the last transaction was of several changes."""
        return self._taken > 1

    @property
    def is_troubled(self) -> bool:
        """Whether a change failed and has not succeeded since."""
        return bool(self._suspects or self._postponed)

    def add(self, keys: Iterable[Key]) -> None:
        """These networks' rules have to change."""
        for key in keys:
            self._changed[key] = None

    def surprising(self, differing: set[Key]) -> set[Key]:
        """Those of `differing` that no change of ours explains: others changed them."""
        return differing - self._changed.keys() - self._suspects - self._uncertain

    def take(self, eager: Iterable[Key]) -> set[Key]:
        """Take the next transaction's networks; see `next_batch`, and `MOST_OVERTAKEN`."""
        keys: set[Key] = set()
        if self._suspects and self._suspects_overtaken >= MOST_OVERTAKEN:
            self._suspects_overtaken = 0
            keys.update(islice((key for key in self._changed if key in self._suspects), 1))
        if not keys:
            self._suspects_overtaken += 1
            keys = next_batch(self._changed, self._suspects, eager)
        for key in keys:
            del self._changed[key]
        self._taken = len(keys)
        return keys

    def take_differing(self, differing: set[Key]) -> set[Key]:
        """Take the networks of the transaction that mends what a look has found to differ.

        What others did is mended in one transaction, however much it is; suspects stay alone. A
        suspect that does not differ is none any more.
        """
        self._suspects &= differing
        self._postponed &= differing
        self._uncertain.clear()
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

    def failed(self, keys: set[Key], timed_out: bool = False) -> set[Key]:
        """A transaction failed; return the networks that are postponed. The rest is tried alone.

        A suspect is postponed. So is a network that was alone in its first transaction, if that
        timed out: to try it again at once would delay others by as much.
        """
        alone = len(keys) == 1 and (timed_out or keys <= self._suspects)
        self._suspects |= keys
        self._uncertain |= keys
        if alone:
            self._postponed |= keys
            return keys
        self._changed.update(dict.fromkeys(keys))
        return set()

    def put_off(self, key: Key) -> None:
        """Leave a postponed network alone until the next retry."""
        self._changed.pop(key, None)

    def suspect(self, keys: set[Key]) -> None:
        """The transaction that mended what a look found failed, with these networks in it."""
        self._suspects |= keys
        self._uncertain |= keys

    def retry(self) -> None:
        """Try what was postponed again."""
        self._changed.update(dict.fromkeys(self._postponed))
        self._postponed.clear()


def next_batch(
    changed: Collection[Key], suspects: Collection[Key], eager: Iterable[Key]
) -> set[Key]:
    """Choose the next transaction's networks from `changed` (at least one).

    `eager` are the networks that callers want let in; half of the transaction is reserved for them,
    in their order. The others follow in the order of `changed`. A suspect is taken alone, when
    nothing else is left.
    """
    if not suspects and len(changed) <= MOST_AT_ONCE:
        return {*changed}
    ready = (key for key in eager if key in changed and key not in suspects)
    others = (key for key in changed if key not in suspects)
    keys: set[Key] = set()
    for key in chain(islice(ready, MOST_AT_ONCE // 2), others):
        keys.add(key)
        if len(keys) == MOST_AT_ONCE:
            break
    return keys or {next(iter(changed))}
