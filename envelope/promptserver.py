"""Accepted connections that write at once what their socket takes.

Twisted's own leave each piece to the next turn of the reactor, so that small ones go out together:
two calls of epoll_ctl(2), and one turn more until the client has its answer. Each of the three
pieces of an opening handshake is the only one of its turn, and is awaited by the client.
"""

from __future__ import annotations

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.tcp import Port, Server
from zope.interface import implementer_only


# TLS declares each interface of what it stands on anew, for each connection; no other is asked for.
@implementer_only(ITCPTransport)
class PromptServer(Server):
    """A connection; what the socket does not take at once goes Twisted's usual way."""

    def write(self, data: bytes) -> None:
        """Send `data`, behind what has not gone out yet."""
        if self.connected and not (
            self.dataBuffer or self._tempDataBuffer or self._writeDisconnected
        ):
            sent = self.writeSomeData(data)
            # An error is told once more when it is tried again, and handled there.
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            super().write(data)


def write_promptly(port: object) -> None:
    """Make the connections that `port` accepts write at once; other than TCP ports stay as is."""
    if isinstance(port, Port) and port.transport is Server:
        port.transport = PromptServer
