"""Grants among the elements of our sets, read back. Pure.

An element's end is told by the kernel as the time that it has left. Ours are kept as seconds of
the clock that the kernel counts timeouts with, the monotonic one, and those that agree within
what reading and writing take count as the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from envelope.firewall.kernel import EVERYONE, Key, Rules
from envelope.firewall.nftruleset import ADDRESSES, PROXIES
from envelope.firewall.nftsnapshot import NftSnapshot
from envelope.firewall.ruleset import Layout
from envelope.firewall.snapshot import UnreadableRules

# By how much (seconds) an element's end may lie before or after the one that was asked for: ends
# are whole seconds, and a transaction may have been under way for as long as is waited for one.
EARLIER: Final = 1.5
LATER: Final = 9.0
# Elements that are read in one go: some 3 ms.
SLICE: Final = 500

_END: Final = "ends "
_NEVER: Final[Rules] = ("never ends",)
_FAMILIES: Final = {"ipv4": 4, "ipv6": 6}
_ELEMENT: Final = re.compile(
    r'(?P<name>[^\s,}]+)(?: timeout [0-9a-z]+ expires (?P<left>[0-9a-z]+))?'
    r'(?P<more>(?:[^",}]|"[^"]*")*)(?P<after>[,}])\s*'
)
_LEFT: Final = re.compile(r" expires ([0-9a-z]+)")
_QUOTED: Final = re.compile(r'"[^"]*"')
_ADDRESS: Final = re.compile(r"[0-9a-f.:]+")
_TIME: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?")


def ending(second: int) -> Rules:
    """What a grant consists of: one element, until that second of the monotonic clock."""
    return (f"{_END}{second}",)


def end_of(rules: Rules) -> int | None:
    """The second at which a grant ends; None for no grant, or one that does not end by itself."""
    if not rules or rules == _NEVER:
        return None
    return int(rules[0].removeprefix(_END))


def milliseconds_left(rules: Rules, now: float) -> int | None:
    """How long a grant has to last from `now` on; None for no grant."""
    end = end_of(rules)
    # Without a timeout, or with one of 0, an element would never end.
    return None if end is None else max(1, round((end - now) * 1000))


def certain(
    keys: Iterable[Key], in_force: Mapping[Key, Rules], now: float
) -> dict[Key, bool]:
    """Which of `keys` are let in, and which are not, until a transaction from `now` on is over.

    Those that end meanwhile are left out.
    """
    standing: dict[Key, bool] = {}
    for key in keys:
        rules = in_force.get(key, ())
        end = end_of(rules)
        if end is None or end > now + LATER:
            standing[key] = bool(rules)
    return standing


def seconds(text: str) -> float:
    """A time as nft prints it, `1d2h3m4s5ms`; raise `UnreadableRules`."""
    match = _TIME.fullmatch(text)
    if match is None or not text:
        raise UnreadableRules(f"{text!r} is no time")
    days, hours, minutes, full, thousandths = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + full + thousandths / 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """When a table was read (by the monotonic clock, from and until), and what should be there."""

    layout: Layout
    begun: float
    ended: float
    in_force: Mapping[Key, Rules]

    def grant(self, key: Key, left: str | None) -> Rules:
        """A grant as it was written, if it is as it was written; else as it was read."""
        if left is None:
            return _NEVER
        remaining = seconds(left)
        known = self.in_force.get(key, ())
        end = end_of(known)
        if end is not None and self.begun + remaining - LATER <= end <= (
            self.ended + remaining + EARLIER
        ):
            return known
        return ending(round(self.ended + remaining))

    def is_over(self, rules: Rules) -> bool:
        """Whether the kernel has ended a grant by itself."""
        end = end_of(rules)
        return end is not None and end <= self.ended + EARLIER


def grants_in(
    snapshot: NftSnapshot, reading: Reading, found: dict[Key, Rules]
) -> Iterator[None]:
    """Note in `found` the grants among the elements, in steps of `SLICE`.

    What the kernel has ended by itself is gone from its sets; it is noted as it was written,
    since nobody has to do anything about it. Raises `UnreadableRules`.
    """
    for name, shown in snapshot.sets.items():
        if name not in (*ADDRESSES.values(), PROXIES):
            continue
        text = " ".join(shown.elements)
        position = count = 0
        while position < len(text):
            match = _ELEMENT.match(text, position)
            if match is None:
                raise UnreadableRules(f"an element of the set {name} that cannot be read")
            position = match.end()
            key = _key_of(name, match["name"], reading.layout)
            if key is not None:
                found[key] = reading.grant(key, match["left"] or _left(match["more"]))
            count += 1
            if count % SLICE == 0:
                yield
    for key, rules in reading.in_force.items():
        if key not in found and reading.is_over(rules):
            found[key] = rules


def _left(more: str) -> str | None:
    match = _LEFT.search(_QUOTED.sub("", more))
    return match[1] if match is not None else None


def _key_of(name: str, element: str, layout: Layout) -> Key | None:
    if name == PROXIES:
        return EVERYONE.get(_FAMILIES.get(element, 0))
    if not _ADDRESS.fullmatch(element):
        return None
    version = 4 if name == ADDRESSES[4] else 6
    if version == 6 and "." in element:
        # inet_ntop(3) writes some addresses in a mixed form, and ipaddress does not.
        element = str(ip_address(element))
    return Key(f"{element}/{layout.prefix(version)}")
