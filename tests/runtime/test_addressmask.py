"""Addresses in lines of the log: none of them is left, wherever it stands."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from envelope.runtime.addressmask import masked


@pytest.mark.parametrize(("line", "network", "none"), [
    ("session 0a from 203.0.113.7 opened", "session 0a from 203.0.113.0/24 opened",
     "session 0a from - opened"),
    ("from 2001:db8::7 ended", "from 2001:db8::/64 ended", "from - ended"),
    ("-s 203.0.113.7/32 -j ACCEPT", "-s 203.0.113.0/24 -j ACCEPT", "-s - -j ACCEPT"),
    ("-s 2001:db8:1:2::/48 -j", "-s 2001:db8:1::/48 -j", "-s - -j"),
    ("10.0.0.0/8", "10.0.0.0/8", "-"),
    ("203.0.113.7:5000", "203.0.113.0/24:5000", "-:5000"),
    ("[2001:db8::7]:443", "[2001:db8::/64]:443", "[-]:443"),
    ("host='127.0.0.1', port=1", "host='127.0.0.0/24', port=1", "host='-', port=1"),
    ("::ffff:203.0.113.7.", "203.0.113.0/24.", "-."),
    ("64:ff9b::203.0.113.7", "64:ff9b::/64", "-"),
    ("fe80::1%eth0", "fe80::/64%eth0", "-%eth0"),
    ("src=203.0.113.7,dst=203.0.113.8", "src=203.0.113.0/24,dst=203.0.113.0/24", "src=-,dst=-"),
    ("peer:2001:DB8:0:0:0:0:0:7:", "peer:2001:db8::/64:", "peer:-:"),
    ('{"address": "2001:db8::7"}', '{"address": "2001:db8::/64"}', '{"address": "-"}'),
])
def test_a_line(line: str, network: str, none: str) -> None:
    assert (masked(line, "full"), masked(line, "network"), masked(line, "none")) == (
        line, network, none)


@pytest.mark.parametrize("line", [
    "2026-11-28T21:02:54+0000 [envelope#info] envelope 0.1.0", "21:02:54", "iptables v1.8.9",
    "listening on 0.0.0.0 and ::", "a 300.1.1.1", "02:42:ac:11:00:02", "tcp/5000-5010",
    '{"seconds": 12.25}', "2026-11-28T21:02:54.123Z",
])
def test_what_is_no_address_stays(line: str) -> None:
    for shown in ("network", "none"):
        assert masked(line, shown) == line  # type: ignore[arg-type]


ADDRESSES = st.ip_addresses().map(str) | st.ip_addresses(v=4).map(lambda a: f"::ffff:{a}") | (
    st.ip_addresses(v=6).map(lambda a: a.exploded)) | st.ip_addresses(v=6).map(
    lambda a: str(a).upper())
TEXT = st.text(st.sampled_from(" :=,;'\"[](){}<>|-_/ghxyz\n%"), max_size=6)


@given(before=TEXT, address=ADDRESSES, after=TEXT, other=ADDRESSES)
def test_no_address_is_left(before: str, address: str, after: str, other: str) -> None:
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None) or parsed
    assume(not mapped.is_unspecified)
    assume(not (before.endswith(":") or after.startswith((":", "/"))))
    line = f"{before}{address}{after} {other}"
    assert address not in masked(line, "none").split(other)[0]
    shown = masked(f"{before}{address}{after}", "network")
    network = ip_network((mapped, 24 if mapped.version == 4 else 64), strict=False)
    assert shown == f"{before}{network}{after}"


@given(st.text(st.sampled_from("0123456789abcdef:./ "), max_size=60))
@example("1::00000")
@example("1.2.3.4/" + "1" * 5000)
def test_any_text(line: str) -> None:
    """A mask never fails."""
    assert masked(line, "full") == line
    for shown in ("network", "none"):
        masked(line, shown)


@given(st.lists(st.one_of(
    st.ip_addresses().map(str), st.ip_addresses(v=6).map(lambda each: each.exploded),
    st.sampled_from(["session", "5.3", "12:30:15", "1::00000", "0.0.0.0", "port:8880", "-s"]),
)))
def test_a_line_that_was_masked_stays_as_it_is(words: list[str]) -> None:
    """Networks are shown, and are not hidden further."""
    for shown in ("network", "none"):
        once = masked(" ".join(words), shown)
        assert masked(once, shown) == once


def test_a_long_line_takes_no_long_time() -> None:
    for piece in ("a:", "1.", "::", "1:2:3:4:5:6:7:", "ffff:"):
        masked(piece * 20_000, "none")
