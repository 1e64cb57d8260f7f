"""Which `Host` a request for the status page may name. Pure.

A page of others can make a browser ask any address under a name of its own (DNS rebinding), and
would then read what the status page shows. Such a request names that page's host.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

# RFC 9110 section 7.2: a host as in a URI, and a port that may be left out or empty.
_HOST: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s\[\]:@/]+))(?::[0-9]{0,5})?")


def is_own(hosts: Sequence[str], names: Container[str]) -> bool:
    """Whether a request is for us: one `Host`, an IP address, `localhost` or one of `names`.

    `hosts` are the values of all its `Host` headers, `names` are in lower case.
    """
    if len(hosts) != 1:
        return False
    match = _HOST.fullmatch(hosts[0])
    if match is None:
        return False
    try:
        if match["v6"]:
            IPv6Address(match["v6"])
        else:
            IPv4Address(match["host"])
    except AddressValueError:
        name = (match["host"] or "").lower().removesuffix(".")
        return name == "localhost" or name in names
    return True
