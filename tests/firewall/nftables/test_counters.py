"""What the kernel tells of elements and their counters, as messages."""

from __future__ import annotations

from ipaddress import ip_address

from envelope.config import Config
from envelope.config.subjects import Subject
from envelope.firewall import Traffic
from envelope.firewall.nftables.counters import Counted, elements, keys_of
from envelope.firewall.policy import RuleChoices
from envelope.netlink import attribute, nested

# An element of grants4 that was deleted, as Linux 6.18 told it.
TOLD = bytes.fromhex(
    "010000030d000100656e76656c6f7065000000000c0002006772616e7473340058000300540001000c00010008000100"
    "0a0000012c0007000c000100636f756e746572001c0002000c00010000000000000000540c0002000000000000000001"
    "0c000400000000000000ea600c000500000000000000ea60"
)
HEAD = bytes((1, 0, 0, 0))


def number(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(8, "big"))


def element(address: str, packets: int, size: int, several: bool) -> bytes:
    """An element with a counter, among other expressions in kernels that know several."""
    counter = attribute(1, b"counter\0") + nested(2, number(1, size), number(2, packets))
    key = nested(1, attribute(1, ip_address(address).packed))
    if not several:
        return nested(1, key, nested(7, counter))
    other = nested(1, attribute(1, b"last\0"))
    return nested(1, key, nested(11, other, nested(1, counter)))


def message(name: str, *listed: bytes, table: str = "envelope") -> bytes:
    return HEAD + attribute(1, f"{table}\0".encode()) + attribute(
        2, f"{name}\0".encode()) + nested(3, *listed)


def test_what_a_kernel_tells_is_read() -> None:
    assert [*elements(TOLD)] == [Counted("grants4", bytes((10, 0, 0, 1)), 1, 84)]


def test_all_elements_of_a_message_are_read() -> None:
    """However many expressions each has, and without those that count nothing."""
    plain = nested(1, nested(1, attribute(1, bytes(4))))
    told = message(
        "grants6_2", element("2001:db8::7", 3, 300, True), plain,
        element("::ffff:1.2.3.4", 1, 99, False),
    )
    choices = RuleChoices.of(Config(
        grant_prefix6=64, subject=tuple(map(Subject, ("a", "b", "c")))), ())
    assert dict(keys_of(elements(told), choices)) == {
        "2001:db8::7/64 2": Traffic(3, 300, True),
        f"{ip_address('::ffff:1.2.3.4')}/64 2": Traffic(1, 99, True),
    }


def test_other_tables_and_other_sets_are_not_ours() -> None:
    one = element("10.0.0.1", 1, 84, False)
    assert [*elements(message("grants4", one, table="others"))] == []
    assert [*elements(bytes((2, 0, 0, 0)) + message("grants4", one)[4:])] == []
    choices = RuleChoices.of(Config(), ())
    assert [*keys_of(elements(message("theirs", one)), choices)] == []
    assert [*elements(HEAD)] == []
