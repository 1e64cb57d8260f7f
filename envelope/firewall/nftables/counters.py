"""What the elements of our sets have counted: asked of the kernel, told by it, or printed."""

from __future__ import annotations

import re
import struct
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from envelope.firewall import Traffic, grant_key
from envelope.firewall.cooperate import slices
from envelope.firewall.deletions import Deletions
from envelope.firewall.kernel import Key, address_text
from envelope.firewall.nftables.grants import key_of_element, pieces_of
from envelope.firewall.nftables.rules import read_set_name
from envelope.firewall.nftables.snapshot import NftSnapshot
from envelope.firewall.policy import RuleChoices
from envelope.netlink import NETLINK_NETFILTER, Netlink, attribute, attributes, listed

# linux/netfilter/nf_tables.h
_GET, _DELETED = 10 << 8 | 13, 10 << 8 | 14
_INET: Final = 1
_FAMILY: Final = struct.Struct("=BBH")
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_KEY, _EXPRESSION, _EXPRESSIONS = 1, 7, 11
_VALUE, _NAME, _DATA = 1, 1, 2
_BYTES, _PACKETS = 1, 2
# How an element begins, with an address of each family, and where that ends; the counter behind it,
# as kernels write it that put nothing else there. Parsing each attribute takes five times as long.
_KEYS: Final = tuple(
    (struct.pack("=HHHH", 8 + size, _KEY, 4 + size, _VALUE), 8 + size) for size in (4, 16)
)
_COUNTER: Final = struct.pack(
    "=HHHH8sHHHH", 44, _EXPRESSION, 12, _NAME, b"counter", 28, _DATA, 12, _BYTES
)
_NUMBERS: Final = struct.Struct(">Q4xQ")
# An element as nft prints it.
_COUNTED: Final = re.compile(r'([^\s"]+)(?: [^"]*)? counter packets (\d+) bytes (\d+)')
_OURS: Final = b"envelope\0"


class Counted(NamedTuple):
    """One element of a set: its address in network order, and what it has counted."""

    name: str
    address: bytes
    packets: int
    bytes: int


class ElementCounters:
    """The counters in the elements of our table's sets."""

    def __init__(self) -> None:
        self._kernel = Netlink(NETLINK_NETFILTER)
        self._deletions = Deletions(_DELETED)

    def listen(self) -> None:
        """Hear of deleted elements from now on, where the kernel allows it."""
        with suppress(OSError):
            self._kernel.open()
        self._deletions.listen()

    def deleted(self) -> Iterator[Counted]:
        """The elements that were deleted since the last call; see `lost`."""
        for message in self._deletions.read():
            yield from elements(message)

    def lost(self) -> bool:
        """See `Deletions.lost`."""
        return self._deletions.lost()

    def counts(self, name: str) -> Iterator[list[Counted]]:
        """The elements of a set, read datagram by datagram; raises `OSError`."""
        body = _FAMILY.pack(_INET, 0, 0) + attribute(_TABLE, _OURS) + attribute(
            _SET, name.encode() + b"\0")
        for message in self._kernel.dump(_GET, body):
            yield [*elements(message)]

    def close(self) -> None:
        """Hear no more, and let go of the kernel."""
        self._kernel.close()
        self._deletions.close()


def elements(message: bytes) -> Iterator[Counted]:
    """The elements with a counter in a message about a set of our table. Pure."""
    family, _, _ = _FAMILY.unpack_from(message)
    parts = attributes(message, _FAMILY.size)
    if family != _INET or parts.get(_TABLE) != _OURS:
        return
    name = parts.get(_SET, b"\0")[:-1].decode("ascii", "replace")
    for element in listed(parts.get(_ELEMENTS, b"")):
        for key, end in _KEYS:
            if element.startswith(key) and element.startswith(_COUNTER, end):
                bytes_, packets = _NUMBERS.unpack_from(element, end + len(_COUNTER))
                yield Counted(name, element[len(key):end], packets, bytes_)
                break
        else:
            yield from _counted(name, attributes(element))


def _counted(name: str, found: dict[int, bytes]) -> Iterator[Counted]:
    """An element that is written in another way than in `_KEYS` and `_COUNTER`."""
    address = attributes(found.get(_KEY, b"")).get(_VALUE, b"")
    one, several = found.get(_EXPRESSION), found.get(_EXPRESSIONS, b"")
    for expression in listed(several) if one is None else [one]:
        counter = attributes(expression)
        if counter.get(_NAME) == b"counter\0":
            numbers = attributes(counter.get(_DATA, b""))
            packets, bytes_ = numbers.get(_PACKETS, b""), numbers.get(_BYTES, b"")
            yield Counted(
                name, address, int.from_bytes(packets, "big"), int.from_bytes(bytes_, "big")
            )


def keys_of(
    counted: Iterable[Counted], choices: RuleChoices
) -> Iterator[tuple[Key, Traffic]]:
    """The grants among elements of our sets, and what each has counted. Pure."""
    for element in counted:
        belongs = read_set_name(element.name)
        if belongs is not None:
            version, service = belongs
            network = f"{address_text(element.address)}/{choices.prefix(version)}"
            yield grant_key(network, service), Traffic(element.packets, element.bytes, exact=True)


def counts_in(
    snapshot: NftSnapshot, choices: RuleChoices
) -> Generator[int, None, dict[Key, Traffic]]:
    """What nft prints that each grant's element has counted, in steps; raises `UnreadableRules`."""
    found: dict[Key, Traffic] = {}
    for name, shown in snapshot.sets.items():
        for pieces in slices(pieces_of(name, shown.elements) if read_set_name(name) else ()):
            for piece in pieces:
                match = _COUNTED.match(piece)
                key = key_of_element(name, match[1], choices) if match else None
                if match is not None and key is not None:
                    found[key] = Traffic(int(match[2]), int(match[3]), exact=False)
            yield len(pieces)
    return found
