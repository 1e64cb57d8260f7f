"""What each grant has let in, over all the rules that it has had. Pure.

The kernel counts for each rule, and a grant has a new rule whenever its end changes. What a deleted
rule had counted is added up; what the rule that stands has counted is known from the last reading.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass
from itertools import count

from envelope.firewall import Traffic
from envelope.firewall.kernel import Key


@dataclass(slots=True)
class _Entry:
    """One grant; `rule_` is what the rule that stands had counted at the last reading.

    `told_` is what a caller was told when another one took the grant over. `ended`: a rule was
    deleted and its count told; another one may stand by now, as where rules moved to other chains.
    `gone`: none stands. `exact`: no rule was deleted without its count. `changed` and `read` are
    the numbers of the last change and the last reading.
    """

    packets: int = 0
    bytes: int = 0
    rule_packets: int = 0
    rule_bytes: int = 0
    told_packets: int = 0
    told_bytes: int = 0
    ended: bool = False
    gone: bool = False
    exact: bool = True
    known: bool = False
    changed: int = 0
    read: int = 0

    def read_as(self, packets: int, bytes_: int) -> None:
        """The rule that stands has counted so much."""
        if packets < self.rule_packets:
            self.lose()
        self.rule_packets, self.rule_bytes, self.known = packets, bytes_, True

    def add(self) -> None:
        """The rule is gone; what it had counted is added up."""
        self.packets += self.rule_packets
        self.bytes += self.rule_bytes
        self.rule_packets = self.rule_bytes = 0

    def lose(self) -> None:
        """The rule is gone, and what it had counted since the last reading is not known."""
        self.add()
        self.exact = False

    def total(self) -> Traffic:
        """All that is known and that no caller was told before."""
        return Traffic(
            self.packets + self.rule_packets - self.told_packets,
            self.bytes + self.rule_bytes - self.told_bytes,
            self.gone and self.exact,
            self.gone and self.exact and not self.packets,
        )


class Ledger:
    """The traffic of every grant in force."""

    def __init__(self) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._numbers = count(1)
        # The numbers of the last reading and the last transaction.
        self._last_reading = 0
        self._last_writing = 0

    def deleted(self, rules: Iterable[tuple[Key, Traffic]]) -> None:
        """Rules were deleted that had counted so much; `exact`: and nothing more."""
        for key, counted in rules:
            entry = self._entries.get(key)
            if entry is not None:
                entry.read_as(counted.packets, counted.bytes)
                entry.add()
                entry.exact = entry.exact and counted.exact
                entry.ended = True
                entry.changed = next(self._numbers)

    def doubt(self) -> None:
        """Some rules were deleted that nobody told of: no count is exact any more."""
        for entry in self._entries.values():
            entry.exact = False

    def written(
        self, grants: Mapping[Key, object | None], awaited: Container[Key],
        same: Container[Key] = (),
    ) -> None:
        """Grants were written, or deleted with None; callers wait for the `awaited`.

        What deleted rules had counted was told before, by `deleted`. The grants in `same` were in
        force as they are: a rule of theirs that was not told of still stands, and counts on.
        """
        before, self._last_writing = self._last_writing, next(self._numbers)
        for key, grant in grants.items():
            entry = self._entries.get(key)
            if entry is None:
                if grant is None:
                    continue
                entry = self._entries[key] = _Entry(ended=True, gone=True)
            if not entry.gone and not (entry.ended and entry.changed > before):
                if key in same:
                    # The kernel may also have failed to tell of it.
                    entry.exact = False
                else:
                    entry.lose()
            entry.ended = entry.gone = grant is None
            entry.changed = self._last_writing
            if grant is None and key not in awaited:
                del self._entries[key]

    def seen(self, keys: Set[Key]) -> None:
        """These grants were found in the kernel, and no others."""
        for key in self._entries.keys() - keys:
            entry = self._entries[key]
            if not entry.ended:
                entry.lose()
            entry.ended = entry.gone = True
        for key in keys - self._entries.keys():
            self._entries[key] = _Entry(changed=next(self._numbers))

    def begin(self) -> int:
        """A reading begins; returns its number, for `note` and `finish`."""
        return next(self._numbers)

    def note(self, number: int, counts: Iterable[tuple[Key, Traffic]]) -> tuple[()]:
        """Rules that stand have counted so much, as a reading has shown.

        Grants that were written since it began are left out: what was read may be of an older rule.
        """
        for key, counted in counts:
            entry = self._entries.get(key)
            if entry is not None and entry.changed < number:
                # A rule may have been replaced for the sake of its place alone.
                entry.ended = entry.gone = False
                entry.read_as(counted.packets, counted.bytes)
                entry.read = number
        return ()

    def finish(self, number: int) -> None:
        """A reading is over. What it did not show, or all of it where it failed, is not known."""
        self._last_reading = number

    def traffic(self, key: Key) -> Traffic | None:
        """What a grant has let in as of the last reading; None if that did not show it."""
        entry = self._entries.get(key)
        if entry is None or max(entry.changed, entry.read) < self._last_reading:
            return None
        return entry.total() if entry.known or self._last_reading else None

    def is_gone(self, key: Key) -> bool:
        """Whether no rule of a grant stands any more, so that nothing can be added to its count."""
        entry = self._entries.get(key)
        return entry is None or entry.gone

    def end(self, key: Key) -> Traffic | None:
        """What a grant has let in, now that it is over; None where nothing was ever known of it.

        It may go on for another caller, who is told only what comes after that.
        """
        entry = self._entries.get(key)
        if entry is None or not entry.known:
            self._drop(key)
            return None
        total = entry.total()
        entry.told_packets += total.packets
        entry.told_bytes += total.bytes
        self._drop(key)
        return total

    def _drop(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is not None and entry.gone:
            del self._entries[key]
