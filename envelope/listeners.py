"""The sockets that the service listens on, opened with their doors shut.

`parse_listen` is pure. `listen` opens; nobody is accepted before `startReading` is called on the
ports, so that the rules can be in force first.
"""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from twisted.internet.address import IPv4Address as Host4
from twisted.internet.address import IPv6Address as Host6
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.protocols.tls import TLSMemoryBIOFactory

from envelope.config import Address, PortRange

ENDPOINTS: Final = ("tcp", "tcp6", "systemd", "haproxy", "unix")

# Connections that the kernel completes while the service is busy; it caps this at somaxconn.
BACKLOG: Final = 1024
# Seconds. A peer that went away without a word is noticed after 15 + 3 * 5 = 30 s of silence, and
# after as long when it does not acknowledge what was sent.
KEEPALIVE_IDLE: Final = 15
KEEPALIVE_INTERVAL: Final = 5
KEEPALIVE_PROBES: Final = 3
USER_TIMEOUT: Final = 30

_HOST_PORT: Final = re.compile(r"(?:\[(?P<v6>[^][]*)\]|(?P<host>[^][:\s/=]*)):(?P<port>[0-9]{1,5})")
_ENDPOINT_PORT: Final = re.compile(r"(?:haproxy:)?tcp6?:(?:port=)?(?P<port>[^:]*)(?::.*)?")
_NAMELESS: Final = re.compile(r"unix:.*|systemd:(?:.*:)?(?:domain=)?UNIX(?::.*)?")


class ListenError(Exception):
    """A place that cannot be listened on; the text is one line naming it."""


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """One place to listen on, as the operator wrote it in `text`.

    `host` is an address or a name, empty for every address of both families, and None for a
    Twisted endpoint description. `port` is None when only the endpoint knows it.
    """

    text: str
    host: str | None
    port: int | None

    @property
    def knows_clients(self) -> bool:
        """Whether the address of a client can be known."""
        return _NAMELESS.fullmatch(self.text) is None


def parse_listen(text: str) -> ListenSpec:
    """Read `[HOST]:PORT` or an endpoint description; raise `ValueError` with one line."""
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be seen")
    if text.startswith(tuple(f"{kind}:" for kind in ENDPOINTS)):
        match = _ENDPOINT_PORT.fullmatch(text)
        return ListenSpec(text, None, _port(match["port"], text) if match else None)
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
    return ListenSpec(text, match["v6"] or match["host"] or "", _port(match["port"], text))


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise ValueError(f"{whole!r} names a port outside 0 to 65535")
    return int(text)


async def _listen(
    reactor: Any, spec: ListenSpec, factory: IProtocolFactory,
    tls: IOpenSSLServerConnectionCreator | None,
) -> list[IListeningPort]:
    if tls is not None:
        factory = TLSMemoryBIOFactory(tls, False, factory, reactor)
    if spec.host is None:
        return [await _listen_endpoint(reactor, spec, factory)]
    ports: list[IListeningPort] = []
    for opened in _open_sockets(spec):
        # Adopting duplicates the descriptor; the port owns the duplicate.
        with opened:
            port = reactor.adoptStreamPort(opened.fileno(), opened.family, factory)
        port.stopReading()
        ports.append(port)
    return ports


def listen(
    reactor: Any,
    spec: ListenSpec,
    factory: IProtocolFactory,
    tls: IOpenSSLServerConnectionCreator | None,
) -> Deferred[list[IListeningPort]]:
    """Open the sockets of `spec`; nobody is accepted before `startReading` is called on each port.

    With `tls`, TLS runs above whatever the endpoint speaks itself (a proxy's header comes first).
    Fails with `ListenError`, and then nothing of it stays open.
    """
    return Deferred.fromCoroutine(_listen(reactor, spec, factory, tls))


async def _listen_endpoint(
    reactor: Any, spec: ListenSpec, factory: IProtocolFactory
) -> IListeningPort:
    try:
        endpoint = serverFromString(reactor, spec.text)
    except LookupError:
        raise ListenError(f"cannot listen on {spec.text}: nobody passed this socket on") from None
    except (ValueError, TypeError) as error:
        raise ListenError(f"cannot listen on {spec.text}: {_one_line(error)}") from None
    try:
        port: Any = await maybeDeferred(endpoint.listen, factory)
    except CannotListenError as error:
        raise _refused(spec, error.socketError) from None
    except OSError as error:
        raise _refused(spec, error) from None
    port.stopReading()
    if port.socket.family in (socket.AF_INET, socket.AF_INET6):
        _watch_peers(port.socket)
    port.socket.listen(BACKLOG)
    return port


def _open_sockets(spec: ListenSpec) -> list[socket.socket]:
    opened: list[socket.socket] = []
    port = spec.port or 0
    try:
        for family, address in _places(spec):
            opened.append(_open(family, address, port))
            # A free port that was picked for the first address is the port of all.
            port = port or opened[-1].getsockname()[1]
    except OSError as error:
        for one in opened:
            one.close()
        raise _refused(spec, error) from None
    return opened


def _places(spec: ListenSpec) -> list[tuple[int, str]]:
    if not spec.host:
        # Every address is what `:PORT` asks for.
        return [(socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")]  # noqa: S104
    # Nothing is served yet, so a look-up that blocks delays nobody.
    found = socket.getaddrinfo(
        spec.host, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((int(family), str(place[0])) for family, *_, place in found))


def _has_ipv6() -> bool:
    # With the module loaded but disabled, `::` can be opened and not bound.
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _open(family: int, address: str, port: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Said explicitly, since the default is the machine's (net.ipv6.bindv6only).
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        _watch_peers(opened)
        opened.bind((address, port))
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _watch_peers(listening: socket.socket) -> None:
    # Accepted sockets inherit all of these from the one that listens.
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT * 1000),
    ):
        listening.setsockopt(level, option, value)


def _refused(spec: ListenSpec, error: Exception) -> ListenError:
    reason = getattr(error, "strerror", None) or _one_line(error)
    return ListenError(f"cannot listen on {spec.text}: {reason[:1].lower()}{reason[1:]}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def service_ports(ports: list[IListeningPort]) -> tuple[PortRange, ...]:
    """The TCP ports that `ports` really listen on, each once."""
    hosts = [port.getHost() for port in ports]
    numbers = {host.port for host in hosts if isinstance(host, Host4 | Host6)}
    return tuple(PortRange("tcp", number, number) for number in sorted(numbers))


def client_address(peer: object) -> Address | None:
    """The client's address as the kernel's rules see it; None when there is none (a UNIX socket).

    A dual-stack socket shows IPv4 clients as `::ffff:a.b.c.d`.
    """
    if not isinstance(peer, Host4 | Host6):
        return None
    with suppress(ValueError):
        return fold(peer.host)
    return None


def fold(text: str) -> Address:
    """`text` as an address, without zone, an IPv4-mapped one as IPv4; raise `ValueError`."""
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
