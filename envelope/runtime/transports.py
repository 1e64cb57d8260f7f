"""Transports that write at once what the kernel takes: TCP, TLS above it, and pipes to children.

Twisted's own transports write in the next turn of the reactor, so that small pieces go out
together. That costs two calls of epoll_ctl(2), and one turn more until the client has its answer.
Here each piece is the only one of its turn, and the client waits for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from twisted.internet.interfaces import IProcessTransport, IPushProducer, ITCPTransport
from twisted.internet.process import Process, ProcessWriter
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Port, Server
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer_only

from envelope.runtime.internals import require, require_use

_log = Logger(namespace="envelope.transports")

require_use(TLSMemoryBIOProtocol.connectionLost, "_lostTLSConnection")
# Not private by name, but documented nowhere.
require_use(Process.__init__, "pipes")
require(ProcessWriter, "writeSomeData")


# TLS declares each interface of its transport again for each connection; only this one is used.
@implementer_only(ITCPTransport)
class PromptServer(Server):
    """An accepted connection; Twisted's own `write` takes what the socket does not."""

    def write(self, data: bytes) -> None:
        """Send `data` now, unless earlier bytes are still to be sent."""
        if self.connected and not (
            self.dataBuffer or self._tempDataBuffer or self._writeDisconnected
        ):
            sent = self.writeSomeData(data)
            # After an error, Twisted's own write meets it again and handles it.
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            super().write(data)


@cache
def _can_write_promptly() -> bool:
    try:
        require(Server, "dataBuffer", "_writeDisconnected", "writeSomeData")
        require_use(Server.doWrite, "dataBuffer", "_tempDataBuffer", "writeSomeData")
        require_use(Port.doRead, "transport")
    except ImportError as error:
        _log.warn("writing takes one turn of the reactor more: {error}", error=str(error))
        return False
    return True


def write_promptly(port: object) -> None:
    """Make the connections that `port` accepts write at once; only TCP ports can."""
    if isinstance(port, Port) and port.transport is Server and _can_write_promptly():
        port.transport = PromptServer


class TLSConnection(TLSMemoryBIOProtocol):
    """A TLS connection that leaves no reference cycle behind."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol above.

        Twisted would first try to read bytes that OpenSSL still holds. There are none, because all
        are read as they arrive. If the peer sent no close_notify, trying raises an error that its
        own traceback refers to, and that keeps the connection in memory.
        """
        self._lostTLSConnection = True
        super().connectionLost(reason)


class TLSFactory(TLSMemoryBIOFactory):
    """Adds TLS to the protocols of a factory, without Twisted's buffer for small writes.

    The buffer gathers small writes until the next turn of the reactor. Here there is one write in a
    turn, and the buffer takes half a kilobyte for each connection.
    """

    protocol = TLSConnection


def write_to_child(child: IProcessTransport, data: bytes) -> None:
    """Write `data` to the child's standard input; what its pipe does not take now is sent later.

    Data that was written before must have been sent.
    """
    process: Any = child
    pipe = process.pipes.get(0)
    sent = pipe.writeSomeData(data) if pipe is not None else 0
    # After an error, Twisted's own write meets it again and handles it.
    if isinstance(sent, int):
        data = data[sent:]
    if data:
        child.write(data)


def output_of_child(child: IProcessTransport, descriptor: int) -> IPushProducer:
    """The pipe that the child's output on `descriptor` is read from; it must be open."""
    process: Any = child
    pipe: IPushProducer = process.pipes[descriptor]
    return pipe
