"""Hides addresses in lines of the log (`--log-addresses`). Pure.

Any part of a line may hold a client's address: an event's field, a rule that was mended, what a
tool said, a traceback. So every address of every line is hidden, a library's lines included. The
unspecified addresses are nobody's and stay.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final, Literal, TypeAlias

Shown: TypeAlias = Literal["full", "network", "none"]

# What stands for an address that is not shown.
HIDDEN: Final = "-"
# The prefixes of what `network` shows.
_IPV4: Final = 24
_IPV6: Final = 64

# IPv4, also where it ends an IPv6 address (RFC 4291 section 2.2), or IPv6; and its prefix length.
_GROUPS: Final = "[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4})"
_ADDRESS: Final = re.compile(
    rf"(?<![0-9A-Fa-f.])(?:(?P<head>(?:{_GROUPS}{{0,5}})?::(?:{_GROUPS}{{0,4}}:)?|{_GROUPS}{{5}}:)?"
    r"(?P<ipv4>\d{1,3}(?:\.\d{1,3}){3})(?![0-9A-Fa-f])"
    rf"|(?P<ipv6>(?:{_GROUPS}{{0,6}})?::(?:{_GROUPS}{{0,6}})?|{_GROUPS}{{7}})(?![0-9A-Fa-f]))"
    r"(?:/(?P<prefix>\d+))?"
)


def masked(line: str, shown: Shown) -> str:
    """The line with the addresses that it may show."""
    if shown == "full":
        return line
    return _ADDRESS.sub(lambda match: _hidden(match, shown), line)


def _hidden(match: re.Match[str], shown: Shown) -> str:
    address = _address_of(match)
    if address is None or address.is_unspecified:
        return match[0]
    if shown == "none":
        return HIDDEN
    widest = _IPV4 if address.version == 4 else _IPV6
    # Python refuses to read a number of thousands of digits.
    prefix = min(int((match["prefix"] or "128")[:3]), widest)
    return str(ip_network((address, prefix), strict=False))


def _address_of(match: re.Match[str]) -> IPv4Address | IPv6Address | None:
    address: IPv4Address | IPv6Address
    try:
        if match["ipv6"]:
            address = IPv6Address(match["ipv6"])
        else:
            # With leading zeros too, which `ipaddress` refuses.
            ipv4 = IPv4Address(".".join(str(int(number)) for number in match["ipv4"].split(".")))
            address = IPv6Address(f"{match['head']}{ipv4}") if match["head"] else ipv4
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
