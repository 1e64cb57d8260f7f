"""The fixed packages alone: Twisted's TLS, Autobahn and jwcrypto, and nothing of this service.

It verifies a token's signature and answers 101. It has no firewall, no slots, no deadlines, no
limits and no log, so it is no service: it shows how much of a visit's CPU, and of the memory at
rest, is the packages' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS
from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.logger import Logger
from twisted.python import usage
from zope.interface import implementer


class Options(usage.Options):
    """The options that `benchmarks.lab` gives the service; most mean nothing here."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Keep each `--NAME=VALUE`."""
        self.update(word[2:].split("=", 1) for word in options or ())


class _Visit(WebSocketServerProtocol):
    key: JWK

    def onConnect(self, request: ConnectionRequest) -> None:
        """Verify the token; jwcrypto raises if its signature is not valid."""
        JWS().deserialize(request.params["access_token"][0], self.key)


@implementer(IProtocolNegotiationFactory)
class _Factory(WebSocketServerFactory):
    protocol = _Visit

    def acceptableProtocols(self) -> list[bytes]:
        """The one that the clients offer."""
        return [b"http/1.1"]


class _BareService(Service):
    def __init__(self, options: Options) -> None:
        self._options = options

    def startService(self) -> None:
        """Listen, and say so in the words that `benchmarks.lab` awaits."""
        given = self._options
        _Visit.key = JWK.from_json(Path(given["verify-key"]).read_text())
        port = given["listen"].rpartition(":")[2]
        files = f"certKey={given['cert']}:privateKey={given['key']}"
        listening = serverFromString(reactor, f"ssl:{port}:{files}").listen(_Factory())
        listening.addCallback(lambda _: Logger(namespace="envelope").info("ready"))


def makeService(options: Options) -> Service:
    """Called by twistd."""
    return _BareService(options)
