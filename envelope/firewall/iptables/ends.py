"""The chains that grants end by: each accepts packets until a second, and none later. Pure.

A grant is a jump to such a chain, and shares it with all grants that end in the same few seconds.
nft_compat waits for what was deleted before it adds a rule with a match such as `-m time`, 12 to
16 ms right behind a deletion (`python -m benchmarks.behind`); it adds a jump at once. So the chains
are made ahead of time, many in one transaction, for the durations that grants ask for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from envelope.firewall.kernel import DriftKind

# The seconds that one chain serves, and how long (seconds) after its deadline a grant lasts in the
# kernel at least, so that the service's own revocation comes first. With both, the kernel ends a
# grant 3 to 7 s after its deadline: xt_time accepts to the end of the second.
GRANULE: Final = 4
MARGIN: Final = 2
# xt_time counts seconds in 32 bits but its user-space parser stops here (iptables-extensions(8)).
LATEST_END: Final = int(datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC).timestamp())

END_PREFIX: Final = "ENVELOPE-END-"
END_NAME: Final = rf"{END_PREFIX}\d{{8}}T\d{{6}}"
# With it a name has the most characters that iptables takes, 28; it is in UTC.
_NAMED: Final = f"{END_PREFIX}%Y%m%dT%H%M%S"
_PRINTED: Final = re.compile(
    r"-m time (?:--timestart \S+ --timestop \S+ )?--datestop (\S+) -j ACCEPT"
)

# Seconds: chains are made so far ahead, as soon as those that are there last for less than `SOON`
# (looks are 10 s apart while grants come), if grants of that duration were asked for in `_RECENT`.
AHEAD: Final = 72
SOON: Final = 24
_RECENT: Final = 120.0
# How many durations are remembered, in steps of `GRANULE`.
_DURATIONS: Final = 16
# So many chains that no grant needs are removed without waiting for a transaction that makes some.
_MOST_IDLE: Final = 64


def end_of_grant(deadline: float) -> int:
    """The last second of a grant with this deadline, as its chain has it; both since the epoch."""
    return min(_rounded_up(math.ceil(deadline) + MARGIN), LATEST_END)


def _rounded_up(second: int) -> int:
    return -(-second // GRANULE) * GRANULE


@lru_cache(maxsize=1 << 10)
def end_chain(end: int) -> str:
    """The name of the chain that accepts packets until `end` (seconds since the epoch)."""
    return f"{datetime.fromtimestamp(end, UTC):{_NAMED}}"


@lru_cache(maxsize=1 << 10)
def end_rule(end: int) -> str:
    """The one rule of that chain."""
    return f"-m time --datestop {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%S} -j ACCEPT"


@lru_cache(maxsize=1 << 12)
def read_end(chain: str) -> int | None:
    """The end that a chain's name tells; None if it is no such chain."""
    try:
        return int(datetime.strptime(chain, _NAMED).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


@lru_cache(maxsize=1 << 12)
def read_datestop(rule: str) -> int | None:
    """The end that a rule with `-m time` has; None if it is no such rule."""
    match = _PRINTED.fullmatch(rule)
    if match is None:
        return None
    try:
        return int(datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def make_ends(ends: Iterable[int]) -> list[str]:
    """The lines that make these chains; one that is there already is made anew."""
    return [
        line for end in sorted(ends)
        for line in (f":{end_chain(end)} - [0:0]", f"-A {end_chain(end)} {end_rule(end)}")
    ]


def drop_ends(ends: Iterable[int]) -> list[str]:
    """The lines that remove these chains, which no rule may refer to."""
    chains = [end_chain(end) for end in sorted(ends)]
    return [*(f":{chain} - [0:0]" for chain in chains), *(f"-X {chain}" for chain in chains)]


_REFERENCE: Final = re.compile(rf"(?m) -[jg] ({END_NAME})$")


def referred(text: str) -> set[int]:
    """The ends of the chains that any rule in iptables-save's text refers to."""
    return {
        end for chain in _REFERENCE.findall(text) if (end := read_end(chain)) is not None
    }


class Ends:
    """Which of these chains are in the kernel, and which are to be made or removed.

    `usual` is a duration (seconds) that grants are expected to ask for: `--timeout`. `now` is the
    wall-clock time in seconds since the epoch. A chain that is missing when a grant needs it is
    made in the grant's transaction, and with it those that the next grants of that duration need.
    """

    def __init__(self, usual: float) -> None:
        # A duration of D seconds leads to ends that are D + MARGIN to D + MARGIN + GRANULE away.
        first = _step(math.floor(usual) + MARGIN)
        self._usual = {first, first + GRANULE}
        # Steps that grants asked for, in the order of their last use: how often, and when last.
        self._asked: dict[int, tuple[int, float]] = {}
        # Chains that are in the kernel and stay, those that the lines of the last look make, and
        # all that may be there, such as after a transaction whose outcome is unknown.
        self._present: set[int] = set()
        self._coming: set[int] = set()
        self._tried: set[int] = set()

    @property
    def possible(self) -> frozenset[int]:
        """All chains that may be in the kernel."""
        return frozenset(self._tried | self._present)

    def asked_for(self, end: int, now: float) -> None:
        """A new grant is to end then: its duration may be asked for again."""
        step = _step(end - now)
        times, _ = self._asked.pop(step, (0, 0.0))
        self._asked[step] = times + 1, now
        if len(self._asked) > _DURATIONS:
            del self._asked[next(iter(self._asked))]

    def missing(self, wanted: Iterable[int], now: float, mending: bool) -> set[int]:
        """The chains to make in a transaction whose grants end at `wanted`.

        With `mending`, the lines of the last look are part of it.
        """
        there = self._present | self._coming if mending else self._present
        lacking = {*wanted} - there
        making = {*lacking}
        for end in lacking:
            if self._recurs(_step(end - now)):
                making.update(range(end, end + AHEAD, GRANULE))
        making = {min(end, LATEST_END) for end in making - there}
        self._tried |= making
        return making

    def written(self, made: Iterable[int], mending: bool) -> None:
        """A transaction that made these, and with `mending` those of the last look, was applied."""
        self._present.update(made, self._coming if mending else ())

    def inspect(
        self, found: Mapping[int, Sequence[str]], referred: Callable[[], Collection[int]],
        now: float,
    ) -> tuple[list[str], list[DriftKind]]:
        """The lines that mend, make and remove chains, and the kinds of differences.

        `found` are those in the kernel with their rules; `referred` returns the ends of those that
        any rule refers to. What was asked for does not count as a difference. Nothing but the one
        rule belongs into such a chain: another one would let many clients in for longer.
        """
        good = {end for end, rules in found.items() if [*map(read_datestop, rules)] == [end]}
        soon, ahead = self._window(now, SOON), self._window(now, AHEAD)
        lost = (self._present - found.keys()) & ahead
        spoiled = found.keys() - good
        strays = found.keys() - self._tried - ahead
        making = ahead - good if lost or not soon <= good else set()
        idle = found.keys() - ahead
        dropping: set[int] = set()
        if idle and (spoiled or strays or making or not ahead or len(idle) > _MOST_IDLE):
            dropping = idle - {*referred()}
        making = making | (spoiled - dropping)
        self._present = good - dropping
        self._coming = making
        self._tried = {*found, *making}
        kinds = [DriftKind.BASELINE for _ in spoiled]
        kinds += [DriftKind.CHAIN for _ in lost | ((strays & dropping) - spoiled)]
        return [*drop_ends(dropping), *make_ends(making)], kinds

    def _recurs(self, step: int) -> bool:
        near = {step - GRANULE, step, step + GRANULE}
        # The grant that asks now has been counted.
        return not near.isdisjoint(self._usual) or sum(
            self._asked[each][0] for each in near & self._asked.keys()
        ) > 1

    def _window(self, now: float, seconds: int) -> set[int]:
        """The ends that grants will ask for in the next `seconds`, as lately."""
        return {
            min(end, LATEST_END)
            for step, (_, last) in self._asked.items()
            if abs(now - last) < _RECENT and self._recurs(step)
            for end in range(
                _rounded_up(math.ceil(now + step)),
                math.ceil(now + step) + GRANULE + seconds, GRANULE,
            )
        }


def _step(seconds: float) -> int:
    return int(seconds // GRANULE) * GRANULE
