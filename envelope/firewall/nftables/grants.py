"""Grants among the elements of our sets, read back. Pure.

A grant is the second of the reactor's clock at which its element ends (`Second`). nft prints the
time that an element has left, so an end that is read is taken for the one that was written when
the two agree within the time that reading and writing take.
"""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final, TypeAlias

from envelope.firewall import grant_key
from envelope.firewall.cooperate import slices
from envelope.firewall.errors import UnreadableRules
from envelope.firewall.kernel import EVERYONE, Key
from envelope.firewall.nftables.rules import PROXIES, is_own_set, read_set_name
from envelope.firewall.nftables.snapshot import NftSnapshot
from envelope.firewall.policy import RuleChoices

# Seconds by which an element may end before or after the second that was asked for: ends are whole
# seconds, and a transaction may have been under way for as long as we wait for one.
EARLIER: Final = 1.5
LATER: Final = 9.0

# When a grant's element ends, in whole seconds of the reactor's clock.
Second: TypeAlias = float
# An element that others added without a timeout.
NEVER: Final[Second] = math.inf
_FAMILIES: Final = {"ipv4": 4, "ipv6": 6}
# An element with its comment in quotes, which may hold what separates elements elsewhere.
_PIECE: Final = re.compile(r'((?:[^",]|"[^"]*")*)(?:, |$)')
_ELEMENT: Final = re.compile(r'(?P<name>[^\s,}"]+)(?P<more>(?: (?:[^",}]|"[^"]*")+)?)')
_LEFT: Final = re.compile(r" expires ([0-9a-z]+)")
_QUOTED: Final = re.compile(r'"[^"]*"')
_ADDRESS: Final = re.compile(r"[0-9a-f.:]+")
_TIME: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_DIGITS: Final = "0123456789"
# The words of an element as we write it, with and without a counter; "" for what differs.
_WORDS: Final = (
    ("", "counter", "packets", "", "bytes", "", "timeout", "", "expires", ""),
    ("", "timeout", "", "expires", ""),
)


def milliseconds_left(end: Second | None, now: float) -> int | None:
    """How long a grant has to last from `now` on; None for no grant."""
    # Without a timeout, or with one of 0, an element would never end.
    return None if end is None else max(1, round((end - now) * 1000))


def certain(
    keys: Iterable[Key], in_force: Mapping[Key, Second], now: float
) -> dict[Key, bool]:
    """Which of `keys` are let in, and which are not, until a transaction from `now` on is over.

    Those whose element ends meanwhile are left out.
    """
    standing: dict[Key, bool] = {}
    for key in keys:
        end = in_force.get(key)
        if end is None or end > now + LATER:
            standing[key] = end is not None
    return standing


def seconds(text: str) -> float:
    """A time as nft prints it, `1d2h3m4s5ms`; raise `UnreadableRules`."""
    if not text.endswith("ms"):
        return _whole_seconds(text)
    whole = text[:-2].rstrip(_DIGITS)
    thousandths = text[len(whole):-2]
    if not thousandths:
        raise UnreadableRules(f"{text!r} is no time")
    return (_whole_seconds(whole) if whole else 0) + int(thousandths) / 1000


@lru_cache(maxsize=1 << 12)
def _whole_seconds(text: str) -> int:
    # Remembered, since thousands of elements end in the same few minutes.
    match = _TIME.fullmatch(text)
    if match is None or not text:
        raise UnreadableRules(f"{text!r} is no time")
    days, hours, minutes, full = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + full


@dataclass(frozen=True, slots=True)
class Reading:
    """When a table was read (reactor seconds, from and until), and what should be in force."""

    choices: RuleChoices
    begun: float
    ended: float
    in_force: Mapping[Key, Second]

    def grant(self, key: Key, left: str | None) -> Second:
        """A grant as it was written, if the time `left` agrees with that; else as it was read."""
        if left is None:
            return NEVER
        remaining = seconds(left)
        known = self.in_force.get(key)
        if known is not None and self.agrees(known, remaining):
            return known
        return float(round(self.ended + remaining))

    def agrees(self, end: Second, remaining: float) -> bool:
        """Whether an element with so many seconds left is the one that was written to end then."""
        return self.begun + remaining - LATER <= end <= self.ended + remaining + EARLIER

    def is_over(self, end: Second) -> bool:
        """Whether the kernel has ended a grant by itself."""
        return end <= self.ended + EARLIER


def grants_in(
    snapshot: NftSnapshot, reading: Reading
) -> Generator[int, None, dict[Key, Second]]:
    """The grants among the elements, read in steps of `SLICE`; raises `UnreadableRules`.

    A grant that the kernel has ended by itself is gone from its set. It is returned as it was
    written, so that it is no difference that has to be mended.
    """
    found: dict[Key, Second] = {}
    for name, shown in snapshot.sets.items():
        if not is_own_set(name):
            continue
        plain = _plain(shown.elements)
        if plain is not None:
            for part in slices(plain):
                for element in _unlike(name, part, reading, found):
                    _note(name, element, reading, found)
                yield len(part)
            continue
        for pieces in slices(pieces_of(name, shown.elements)):
            for piece in pieces:
                _note(name, piece, reading, found)
            yield len(pieces)
    for gone in slices(reading.in_force.keys() - found.keys()):
        for key in gone:
            if reading.is_over(reading.in_force[key]):
                found[key] = reading.in_force[key]
        yield len(gone)
    return found


def _plain(text: str) -> Iterator[tuple[str, str]] | None:
    """Each element with the time that it has left, or None unless all are as we write them.

    `10.0.0.1 timeout 1h expires 59m59s, …, 10.0.0.9 timeout 1h expires 59m59s }`, or with
    `counter packets 5 bytes 300` behind each address.
    """
    words = text.split()
    if words[-1:] != ["}"]:
        return None
    words.pop()
    for form in _WORDS:
        size = len(form)
        if len(words) % size == 0 and text.count(",") == len(words) // size - 1 and all(
            {*words[place::size]} == {word} for place, word in enumerate(form) if word
        ):
            return zip(words[::size], words[size - 1::size], strict=True)
    return None


def _unlike(
    name: str, part: list[tuple[str, str]], reading: Reading, found: dict[Any, Second]
) -> Iterator[str]:
    """Note the elements that end as they were written; yield the others, to be parsed in full.

    There may be thousands, and each takes half a microsecond. One more call would double that.
    """
    in_force: Mapping[Any, Second] = reading.in_force
    version, service = read_set_name(name) or (4, 0)
    suffix = grant_key(f"/{reading.choices.prefix(version)}", service)
    earliest, latest = reading.begun - LATER + 1, reading.ended + EARLIER
    for element, left in part:
        known = in_force.get(element + suffix)
        if known:
            # Without the milliseconds: `59m59s` of `59m59s120ms`, and `59m` of `59m120ms`.
            whole = left.partition("s")[0]
            whole = f"{whole}s" if whole[-1:] in _DIGITS else _without_thousandths(left)
            if whole and earliest < known - _whole_seconds(whole) < latest:
                found[element + suffix] = known
                continue
        yield f"{element} expires {left.rstrip(',')}"


def _without_thousandths(left: str) -> str:
    left = left.removesuffix(",")
    return left[:-2].rstrip(_DIGITS) if left.endswith("ms") else left


def _note(name: str, piece: str, reading: Reading, found: dict[Key, Second]) -> None:
    match = _ELEMENT.fullmatch(piece)
    if match is None:
        raise UnreadableRules(f"an element of the set {name} that cannot be read")
    key = key_of_element(name, match["name"], reading.choices)
    if key is not None:
        found[key] = reading.grant(key, _left(match["more"]))


def pieces_of(name: str, elements: str) -> list[str]:
    """The elements of a set, each with what nft prints behind it."""
    text = " ".join(elements.split())
    if not text:
        return []
    if not text.endswith(" }"):
        raise UnreadableRules(f"the elements of the set {name} have no end")
    text = text.removesuffix(" }")
    if '"' not in text:
        return text.split(", ")
    pieces: list[str] = _PIECE.findall(text)[:-1]
    if ", ".join(pieces) != text:
        raise UnreadableRules(f"an element of the set {name} that cannot be read")
    return pieces


def _left(more: str) -> str | None:
    match = _LEFT.search(_QUOTED.sub("", more))
    return match[1] if match is not None else None


def key_of_element(name: str, element: str, choices: RuleChoices) -> Key | None:
    """The key of an element of a set of ours; None for one that cannot be a grant."""
    if name == PROXIES:
        return EVERYONE.get(_FAMILIES.get(element, 0))
    if not _ADDRESS.fullmatch(element):
        return None
    version, service = read_set_name(name) or (4, 0)
    if version == 6 and "." in element:
        # inet_ntop(3) writes some addresses in a mixed form, and ipaddress does not.
        element = str(ip_address(element))
    return grant_key(f"{element}/{choices.prefix(version)}", service)
