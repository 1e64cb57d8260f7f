"""Listeners as an operator writes them for `--listen` and `--admin`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Final

ENDPOINTS: Final = ("tcp", "tcp6", "systemd", "haproxy", "unix")

_PROXIED: Final = "haproxy:"
_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[^][]*)\]|(?P<host>[^][:\s/=]*)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """One listener; `text` is what the operator wrote.

    `host` is an address or a host name, empty for every address of both families (`::` is every
    address of IPv6 alone), and None for a Twisted endpoint description, which is then in
    `endpoint`, without its `haproxy:`. `port` is 0 for any free port. It is None when it is known
    only once the socket is open (`systemd:`), and for a UNIX socket (`unix`), which has none. With
    `proxied`, each connection begins with a PROXY header that names the client's address. `local`
    is set for a loopback address, which no other machine can connect to.
    """

    text: str
    host: str | None
    port: int | None
    endpoint: str = ""
    proxied: bool = False
    unix: bool = False
    local: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def clients_have_addresses(self) -> bool:
        """Whether clients have IP addresses: not over a UNIX socket without a PROXY header."""
        return self.proxied or not self.unix


def parse_listen(text: str) -> ListenSpec:
    """Read `[HOST]:PORT` or an endpoint description; raise `ValueError` with one line."""
    if not text.isprintable():
        raise ValueError(f"{text!r} has unprintable characters")
    if text.startswith(tuple(f"{kind}:" for kind in ENDPOINTS)):
        return _endpoint(text)
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is neither [HOST]:PORT nor an endpoint ({', '.join(ENDPOINTS)})"
        )
    if match["v6"] is not None:
        try:
            IPv6Address(match["v6"])
        except ValueError:
            raise ValueError(f"{text!r} has no IPv6 address in its brackets") from None
    host = match["v6"] or match["host"] or ""
    return ListenSpec(text, host, _port(match["port"], text), local=_is_loopback(host))


def _endpoint(text: str) -> ListenSpec:
    """Read an endpoint description; Twisted checks the rest of it when it opens the endpoint."""
    proxied = text.startswith(_PROXIED)
    endpoint = text.removeprefix(_PROXIED)
    if endpoint.startswith(_PROXIED):
        raise ValueError(f"{text!r} says haproxy: twice")
    if (len(endpoint) - len(endpoint.rstrip("\\"))) % 2:
        raise ValueError(f"{text!r} ends with a backslash, and nothing comes after it")
    (kind, *positional), named = _arguments(endpoint)
    port, local = None, False
    if kind in ("tcp", "tcp6"):
        local = _is_loopback(named.get("interface", *positional[1:2] or [""]))
        given = named.get("port", positional[0] if positional else None)
        # A missing port is reported by Twisted when it opens the endpoint.
        port = None if given is None else _port(given, text)
    unix = kind == "unix" or (
        kind == "systemd" and "UNIX" in (named.get("domain"), *positional[:1])
    )
    return ListenSpec(text, None, port, endpoint, proxied, unix, local)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _arguments(description: str) -> tuple[list[str], dict[str, str]]:
    """Split an endpoint description into its positional and its named arguments.

    The syntax is that of `twisted.internet.endpoints.serverFromString`: a colon ends an argument,
    the first equals sign in it ends its name, and a backslash makes the next character literal.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    name, value = None, ""
    characters = iter(f"{description}:")
    for character in characters:
        if character == "\\":
            value += next(characters)
        elif character == "=" and name is None:
            name, value = value, ""
        elif character == ":":
            if name is None:
                positional.append(value)
            else:
                named[name] = value
            name, value = None, ""
        else:
            value += character
    return positional or [""], named


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError(f"{whole!r} names a port outside 0 to 65535")
    return int(text)
