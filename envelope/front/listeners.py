"""Opens the listening sockets of the service, without accepting connections yet.

A port accepts after `envelope.runtime.accepting.start_accepting`, so that the rules are in force
before the first connection. `envelope.config.listen` parses the options.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.address import IPv4Address as Host4
from twisted.internet.address import IPv6Address as Host6
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)

from envelope.addresses import PortRange, client_address
from envelope.config.listen import ListenSpec
from envelope.front.proxied import ProxiedFactory
from envelope.runtime.capabilities import Capability, missing, of_this_process
from envelope.runtime.lookup import addresses_of
from envelope.runtime.transports import TLSFactory, write_promptly

# Connections that the kernel completes while the service is busy; the kernel's limit is somaxconn.
BACKLOG: Final = 1024
# Seconds. A dead peer is detected after 15 + 3 * 5 = 30 s without traffic, or 30 s after bytes were
# sent that it does not acknowledge.
KEEPALIVE_IDLE: Final = 15
KEEPALIVE_INTERVAL: Final = 5
KEEPALIVE_PROBES: Final = 3
USER_TIMEOUT: Final = 30


class ListenError(Exception):
    """The service cannot listen; the text is one line that names the option's value.

    `absent`: this host does not have the address.
    """

    absent = False


def _ignored() -> None:
    """Do nothing."""


async def _listen(
    reactor: Any, spec: ListenSpec, factory: IProtocolFactory,
    tls: IOpenSSLServerConnectionCreator | None, no_proxy: Callable[[], None],
) -> list[IListeningPort]:
    if tls is not None:
        factory = TLSFactory(tls, False, factory, reactor)
    if spec.proxied:
        factory = ProxiedFactory(factory, no_proxy)
    if spec.host is None:
        return [await _listen_endpoint(reactor, spec, factory)]
    ports: list[IListeningPort] = []
    sockets = _open_sockets(spec, await _addresses(reactor, spec))
    try:
        for opened in sockets:
            port = reactor.adoptStreamPort(opened.fileno(), opened.family, factory)
            port.stopReading()
            write_promptly(port)
            ports.append(port)
    except OSError as error:
        for port in ports:
            await maybeDeferred(port.stopListening)
        raise _refused(spec, error) from None
    finally:
        # Adopting duplicates the descriptor; the port owns the duplicate.
        for opened in sockets:
            opened.close()
    return ports


def listen(
    reactor: Any,
    spec: ListenSpec,
    factory: IProtocolFactory,
    tls: IOpenSSLServerConnectionCreator | None,
    no_proxy: Callable[[], None] = _ignored,
) -> Deferred[list[IListeningPort]]:
    """Open the sockets of `spec`; they accept only after `start_accepting` for each port.

    With `tls`, TLS runs above the endpoint's own protocol: a PROXY header comes before it.
    `no_proxy` is called for each connection to a `haproxy:` endpoint without a valid header. Fails
    with `ListenError`; then no socket stays open. Cancelling gives up the look-up of a name.
    """
    return Deferred.fromCoroutine(_listen(reactor, spec, factory, tls, no_proxy))


async def _listen_endpoint(
    reactor: Any, spec: ListenSpec, factory: IProtocolFactory
) -> IListeningPort:
    try:
        endpoint = serverFromString(reactor, spec.endpoint)
    except LookupError:
        raise ListenError(f"cannot listen on {spec.text}: no such socket was passed on") from None
    except (ValueError, TypeError) as error:
        raise ListenError(f"cannot listen on {spec.text}: {_parse_fault(error)}") from None
    try:
        port: Any = await maybeDeferred(endpoint.listen, factory)
    except CannotListenError as error:
        raise _refused(spec, error.socketError) from None
    except OSError as error:
        raise _refused(spec, error) from None
    port.stopReading()
    write_promptly(port)
    if port.socket.family in (socket.AF_INET, socket.AF_INET6):
        _set_options(port.socket)
    port.socket.listen(BACKLOG)
    return cast(IListeningPort, port)


async def _addresses(reactor: Any, spec: ListenSpec) -> list[tuple[int, str]]:
    """The families and addresses to listen on."""
    if not spec.host:
        # `:PORT` stands for every address.
        return [(socket.AF_INET6, "::") if _has_ipv6() else (socket.AF_INET, "0.0.0.0")]  # noqa: S104
    try:
        return await addresses_of(reactor, spec.host, spec.port)
    except OSError as error:
        raise _refused(spec, error) from None
    except CancelledError:
        raise ListenError(f"cannot listen on {spec.text}: its look-up was given up") from None


def _open_sockets(spec: ListenSpec, addresses: list[tuple[int, str]]) -> list[socket.socket]:
    opened: list[socket.socket] = []
    port = spec.port or 0
    try:
        for family, address in addresses:
            # `:PORT` is every address of both families; an address written out is itself alone.
            both = family == socket.AF_INET6 and not spec.host
            opened.append(_open(family, address, port, both))
            # The free port picked for the first address is used for all.
            port = port or opened[-1].getsockname()[1]
    except OSError as error:
        for one in opened:
            one.close()
        raise _refused(spec, error) from None
    return opened


def _has_ipv6() -> bool:
    # If IPv6 is loaded but disabled, a socket can be opened and not bound.
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def _open(family: int, address: str, port: int, both: bool) -> socket.socket:
    """A listening socket; one of IPv6 serves IPv4 as well if it is for `both` families."""
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Set explicitly, because the default is the machine's (net.ipv6.bindv6only).
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not both))
        _set_options(opened)
        opened.bind((address, port))
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _set_options(listening: socket.socket) -> None:
    # Accepted sockets inherit all of these from the listening one.
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
    if isinstance(error, PermissionError):
        # Usually a port below 1024 (ip(7), "ip_unprivileged_port_start").
        lacking = missing(of_this_process().effective, [Capability.NET_BIND_SERVICE])
        reason = " is missing: ".join((*lacking, reason))
        return ListenError(f"cannot listen on {spec.text}: {reason}")
    refused = ListenError(f"cannot listen on {spec.text}: {reason[:1].lower()}{reason[1:]}")
    refused.absent = getattr(error, "errno", None) == errno.EADDRNOTAVAIL
    return refused


def _parse_fault(error: Exception) -> str:
    """What is wrong with an endpoint's text; Twisted reports it as a fault of a Python call."""
    named = re.search(r"'[^']+'$", str(error))
    return f"{named[0]} is missing or makes no sense there" if named else _one_line(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def reachable(ports: list[IListeningPort]) -> list[IListeningPort]:
    """Those of `ports` that other machines can connect to: not those of a loopback address."""
    return [
        port for port in ports
        if (address := client_address(port.getHost())) is not None and not address.is_loopback
    ]


def service_ports(ports: list[IListeningPort]) -> tuple[PortRange, ...]:
    """The TCP ports that `ports` listen on, each once; a port 0 was replaced by a free one."""
    hosts = [port.getHost() for port in ports]
    numbers = {host.port for host in hosts if isinstance(host, Host4 | Host6)}
    return tuple(PortRange("tcp", number, number) for number in sorted(numbers))
