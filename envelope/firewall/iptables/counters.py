"""What the rules of grants have counted: asked of the kernel, told by it, or printed by a tool.

iptables-nft makes rules of nf_tables, which the kernel tells of; it does not of iptables-legacy's.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

from envelope.firewall import Traffic, grant_key
from envelope.firewall.deletions import Deletions
from envelope.firewall.iptables.ends import END_PREFIX
from envelope.firewall.iptables.rules import GRANTS, read_grant, respelled, service_in
from envelope.firewall.kernel import Key, address_text
from envelope.netlink import NETLINK_NETFILTER, Netlink, attribute, attributes, listed

# linux/netfilter/nf_tables.h
_GET, _DELETED = 10 << 8 | 7, 10 << 8 | 8
_FAMILY: Final = struct.Struct("=BBH")
_TABLE, _CHAIN, _HANDLE, _EXPRESSIONS = 1, 2, 3, 4
_NAME, _DATA = 1, 2
_BYTES, _PACKETS = 1, 2
# Of a payload: what it begins at (1: the network header), where it is in that, and its size.
_BASE, _OFFSET, _SIZE = 2, 3, 4
# Of a comparison: how (0: equal), and with what.
_HOW, _COMPARED = 2, 3
_VALUE, _VERDICT, _CODE, _TARGET = 1, 2, 1, 2
_REGISTER, _JUMP = 1, -3
_FILTER: Final = b"filter\0"
_OURS: Final = GRANTS.encode()
_ENDS: Final = END_PREFIX.encode()
# A rule as iptables-save -c prints it.
_COUNTED: Final = re.compile(rf"\[(\d+):(\d+)\] -A ({GRANTS}\S*) (.*)")


class RuleCounters:
    """The counters of the grants' rules of one address family; grants open `prefix` bits."""

    def __init__(self, version: int) -> None:
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        # Where the sender's address is in the header (RFC 791 and RFC 8200, section 3), in bytes.
        place, self._size = (12, 4) if version == 4 else (8, 16)
        self._source = place.to_bytes(4, "big")
        self._usual = _usual(self._family, self._source, self._size)
        self._kernel = Netlink(NETLINK_NETFILTER)
        self._deletions = Deletions(_DELETED)

    @property
    def listens(self) -> bool:
        """Whether the kernel tells of deleted rules."""
        return self._deletions.listens

    def listen(self) -> None:
        """Hear of deleted rules from now on, where the kernel allows it."""
        with suppress(OSError):
            self._kernel.open()
        self._deletions.listen()

    def deleted(self, prefix: int) -> Iterator[tuple[Key, Traffic]]:
        """The rules that were deleted since the last call; see `lost`."""
        for message in self._deletions.read():
            found = self.read(message, prefix)
            if found is not None:
                yield found

    def lost(self) -> bool:
        """See `Deletions.lost`."""
        return self._deletions.lost()

    def counts(self, prefix: int) -> Iterator[tuple[Key, Traffic]]:
        """The rules that stand, of iptables-nft alone; raises `OSError`."""
        body = _FAMILY.pack(self._family, 0, 0) + attribute(_TABLE, _FILTER)
        for message in self._kernel.dump(_GET, body):
            found = self.read(message, prefix)
            if found is not None:
                yield found

    def close(self) -> None:
        """Hear no more, and let go of the kernel."""
        self._kernel.close()
        self._deletions.close()

    def read(self, message: bytes, prefix: int) -> tuple[Key, Traffic] | None:
        """A grant out of a message about a rule of ours, and what it has counted; else None."""
        usual = self._usual.match(message)
        if usual is not None and prefix == 8 * self._size:
            chain, source, bytes_, packets, _end = usual.groups()
            return self._counted(chain, source, prefix, packets, bytes_)
        return self._read_in_full(message, prefix)

    def _read_in_full(self, message: bytes, prefix: int) -> tuple[Key, Traffic] | None:
        parts = attributes(message, _FAMILY.size)
        chain = parts.get(_CHAIN, b"")
        if message[0] != self._family or parts.get(_TABLE) != _FILTER or (
            not chain.startswith(_OURS)
        ):
            return None
        source, ends, is_source = b"", False, False
        packets = bytes_ = b""
        for name, data in _expressions(parts.get(_EXPRESSIONS, b"")):
            if name == b"payload\0":
                is_source = data.get(_OFFSET) == self._source and data.get(_BASE, b"")[-1:] == b"\1"
            elif name == b"cmp\0" and is_source:
                source, is_source = attributes(data.get(_COMPARED, b"")).get(_VALUE, b""), False
            elif name == b"counter\0":
                packets, bytes_ = data.get(_PACKETS, b""), data.get(_BYTES, b"")
            elif name == b"immediate\0":
                verdict = attributes(attributes(data.get(_DATA, b"")).get(_VERDICT, b""))
                ends = verdict.get(_TARGET, b"").startswith(_ENDS)
        if not 0 < len(source) <= self._size or not ends:
            return None
        # Only the bytes that the prefix reaches are compared.
        source = source.ljust(self._size, b"\0")
        return self._counted(chain[:-1], source, prefix, packets, bytes_)

    def _counted(
        self, chain: bytes, source: bytes, prefix: int, packets: bytes, bytes_: bytes
    ) -> tuple[Key, Traffic]:
        service = service_in(chain.decode("ascii", "replace"))
        return grant_key(f"{address_text(source)}/{prefix}", service), Traffic(
            int.from_bytes(packets, "big"), int.from_bytes(bytes_, "big"), exact=True
        )


def _usual(family: int, place: bytes, size: int) -> re.Pattern[bytes]:
    """A message about a rule `-s ADDRESS -j ENVELOPE-END-...`, as the kernel writes it.

    `place` and `size` are those of the sender's address in its header. The groups are the chain,
    the address, the bytes, the packets, and the end. To parse every attribute takes 14 us
    instead of 2.
    """

    def number(kind: int, value: int) -> bytes:
        return attribute(kind, value.to_bytes(4, "big", signed=True))

    def expression(name: bytes, *data: bytes) -> bytes:
        named = attribute(_NAME, name + b"\0")
        return attribute(1, named + attribute(_DATA, b"".join(data)))

    varying = (b"A" * size, b"B" * 8, b"P" * 8, b"E" * len("20261129T034504"))
    address, bytes_, packets, end = varying
    jump = number(_CODE, _JUMP) + attribute(_TARGET, _ENDS + end + b"\0")
    rule = re.escape(attribute(_EXPRESSIONS, b"".join((
        expression(b"payload", number(_REGISTER, 1), number(_BASE, 1),
                   attribute(_OFFSET, place), number(_SIZE, size)),
        expression(b"cmp", number(_REGISTER, 1), number(_HOW, 0),
                   attribute(_COMPARED, attribute(_VALUE, address))),
        expression(b"counter", attribute(_BYTES, bytes_), attribute(_PACKETS, packets)),
        expression(b"immediate", number(_REGISTER, 0),
                   attribute(_DATA, attribute(_VERDICT, jump))),
    ))))
    for each in varying:
        rule = rule.replace(each, b"(.{%d})" % len(each))
    head = bytes([family]), attribute(_TABLE, _FILTER), struct.pack("=H", _CHAIN)
    family_byte, table, chain = map(re.escape, head)
    handle = re.escape(struct.pack("=HH", 12, _HANDLE)) + b".{8}"
    return re.compile(
        b"(?s)" + family_byte + b"..." + table + b".." + chain
        + b"(" + re.escape(_OURS) + rb"[^\0]*)\0{1,4}" + handle + rule
    )


def _expressions(data: bytes) -> Iterator[tuple[bytes, dict[int, bytes]]]:
    """The expressions of a rule: each one's name, and its attributes."""
    for expression in map(attributes, listed(data)):
        yield expression.get(_NAME, b""), attributes(expression.get(_DATA, b""))


def counts_in(lines: Iterable[str], version: int) -> list[tuple[Key, Traffic]]:
    """The grants' rules among those of `iptables-save -c`, and what each has counted. Pure."""
    found: list[tuple[Key, Traffic]] = []
    for line in lines:
        match = _COUNTED.fullmatch(line) if line.startswith("[") else None
        if match is not None:
            grant = read_grant(respelled(match[4]), version, service_in(match[3]))
            if grant is not None:
                found.append((grant[0], Traffic(int(match[1]), int(match[2]), exact=False)))
    return found


def together(counted: Iterable[tuple[Key, Traffic]]) -> dict[Key, Traffic]:
    """What all rules of each grant have counted. Pure."""
    found: dict[Key, Traffic] = {}
    for key, traffic in counted:
        other = found.get(key)
        found[key] = traffic if other is None else Traffic(
            other.packets + traffic.packets, other.bytes + traffic.bytes,
            other.exact and traffic.exact,
        )
    return found
