"""The listening sockets of the service: those of clients, and those of operators.

All are bound before the rules are installed, so that a port in use is found before the kernel is
touched. Those of operators are served at once, during the start and the stop too.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.logger import Logger

from envelope.addresses import PortRange
from envelope.config.listen import ListenSpec
from envelope.front.eviction import DropReason
from envelope.front.factory import FrontFactory
from envelope.front.listeners import ListenError, listen, reachable, service_ports
from envelope.front.metrics import ConnectionMetrics
from envelope.runtime.accepting import accept_carefully, start_accepting

_log = Logger(namespace="envelope")


class ListeningPorts:
    """All listening sockets of one service but the control socket.

    `clients` and `operators` are the open ones. Binding raises `front.listeners.ListenError`.
    """

    def __init__(self, reactor: Any, front: FrontFactory, connections: ConnectionMetrics) -> None:
        self.clients: list[IListeningPort] = []
        self.operators: list[IListeningPort] = []
        self._reactor = reactor
        self._front = front
        self._connections = connections
        self._opening: Deferred[list[IListeningPort]] = succeed([])

    async def bind_for_clients(
        self, spec: ListenSpec, tls: IOpenSSLServerConnectionCreator | None
    ) -> None:
        """Bind the sockets of one `--listen`; they accept after `accept_clients`."""
        self._opening = listen(
            self._reactor, spec, self._front, tls,
            lambda: self._connections.dropped(DropReason.PROXY),
        )
        for port in await self._opening:
            self.clients.append(port)
            accept_carefully(port, self._reactor, self._front.free_descriptor)
            _log.info(
                "listening on {log_host}", event="listening", what="clients",
                log_own_address=True, **_place(port.getHost()),
            )

    async def open_for_operators(
        self, spec: ListenSpec, site: IProtocolFactory, what: str, required: bool = True
    ) -> None:
        """Bind the sockets of `spec` and accept connections; the log says that `what` is there.

        Unless it is `required`, the log says when this host does not have the address.
        """
        self._opening = listen(self._reactor, spec, site, None)
        try:
            ports = await self._opening
        except ListenError as error:
            if required or not error.absent:
                raise
            _log.warn("no {what}: {error}", what=what, error=str(error))
            return
        for port in ports:
            self.operators.append(port)
            accept_carefully(port, self._reactor, self._front.free_descriptor)
            start_accepting(port)
            _log.info(
                "{what} on {log_host}", event="listening", what=what, log_own_address=True,
                **_place(port.getHost()),
            )

    def accept_clients(self) -> None:
        """Accept clients from now on."""
        for port in self.clients:
            start_accepting(port)

    def give_up(self) -> None:
        """Stop waiting for a name server, if the opening of a socket does."""
        self._opening.cancel()

    def open_ports(self) -> tuple[PortRange, ...]:
        """The ports that the rules leave open for clients."""
        return service_ports(self.clients)

    def shut_ports(self) -> tuple[PortRange, ...]:
        """The ports of operators that other machines could connect to; no grant opens them."""
        return service_ports(reachable(self.operators))


def _place(host: Any) -> dict[str, Any]:
    """The fields that say where a socket listens; a UNIX socket has no port."""
    address = getattr(host, "host", None) or os.fsdecode(getattr(host, "name", None) or b"-")
    return {"address": address, "port": getattr(host, "port", None), "log_host": host}
