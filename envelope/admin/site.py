"""The admin site: metrics and health over plain HTTP, for the operator's own network.

Each path has a view: a function without arguments that returns a complete `Answer`. The site never
reads a request's body, and no answer names the server's software.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory, Request, datetimeToString

from envelope.metrics import as_text
from envelope.runtime.internals import require, require_use

_log = Logger(namespace="envelope.admin")

# Methods that are called with a request's body, and that Twisted may change.
require(Request, "handleContentChunk")
require_use(HTTPChannel.allHeadersReceived, "gotLength")

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
# The version of the format that every Prometheus and compatible scraper reads.
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"

# Seconds without a byte from the client. Prometheus scrapes every 15 to 60 s and reuses its
# connection.
IDLE_TIMEOUT: Final = 75
# Seconds from the close of a connection until it is aborted.
ABORT_TIMEOUT: Final = 5
# When there are more connections, the oldest is dropped.
MOST_CONNECTIONS: Final = 64
# Bytes of a request's body that are read and discarded, so that the client can read the answer.
MOST_BODY: Final = 16_384
# Bytes of request line and headers.
MOST_HEADERS: Final = 8_192


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a view."""

    body: bytes
    status: int = 200
    content_type: str = TEXT


View: TypeAlias = Callable[[], Answer]

_NOT_FOUND = Answer(b"There is nothing at this path.\n", 404)
_WRONG_METHOD = Answer(b"Only GET and HEAD are answered here.\n", 405)
_BROKEN = Answer(b"Internal error; the log says why.\n", 500)


def admin_site(
    registry: CollectorRegistry,
    reasons: Callable[[], list[str]],
    reactor: IReactorTime | None = None,
    warnings: Callable[[], list[str]] = list,
) -> HTTPFactory:
    """The site that serves `/metrics`, `/livez` and `/readyz`.

    `reasons` returns why the service is not ready, a line each; none means ready. `warnings`
    returns what the operator should look at although the service is ready. `reactor` runs the
    timeouts; None is the global one.
    """
    views: dict[str, View] = {
        "/metrics": lambda: Answer(as_text(registry), content_type=PROMETHEUS),
        "/livez": lambda: Answer(b"ok\n"),
        "/readyz": lambda: readiness(reasons(), warnings()),
    }
    return _AdminSite(views, reactor)


def readiness(reasons: list[str], warnings: list[str]) -> Answer:
    """200 without reasons, else 503, as JSON with the reasons and warnings that there are."""
    told: dict[str, object] = {"ready": not reasons}
    if reasons:
        told["reasons"] = reasons
    if warnings:
        told["warnings"] = warnings
    return Answer(json.dumps(told).encode() + b"\n", 503 if reasons else 200, JSON)


class _AdminRequest(Request):
    """One request; its body is discarded, and a long one ends the connection."""

    _discarded = 0

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MOST_BODY:
            transport: Any = self.channel.transport
            transport.abortConnection()

    def process(self) -> None:
        answer = self._answer(self.channel.factory.views)
        self.setResponseCode(answer.status)
        headers = {
            "Date": datetimeToString(),
            "Cache-Control": "no-store",
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
            "X-Content-Type-Options": "nosniff",
        }
        if answer is _WRONG_METHOD:
            headers["Allow"] = "GET, HEAD"
        for name, value in headers.items():
            self.setHeader(name, value)
        self.write(b"" if self.method == b"HEAD" else answer.body)
        self.finish()

    def _answer(self, views: Mapping[bytes, View]) -> Answer:
        view = views.get(self.path)
        if view is None:
            return _NOT_FOUND
        if self.method not in (b"GET", b"HEAD"):
            return _WRONG_METHOD
        try:
            return view()
        except Exception:
            _log.failure("a page of the admin site could not be made")
            return _BROKEN


class _AdminChannel(HTTPChannel):
    requestFactory = _AdminRequest
    totalHeadersSize = MOST_HEADERS
    abortTimeout = ABORT_TIMEOUT

    def connectionMade(self) -> None:
        self.factory.arrived(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.left(self)
        super().connectionLost(reason)


class _AdminSite(HTTPFactory):
    """Serves views, without twisted.web's sessions, Server header and access log.

    Scrapes would fill an access log.
    """

    noisy = False

    def __init__(self, views: Mapping[str, View], reactor: IReactorTime | None) -> None:
        super().__init__(timeout=IDLE_TIMEOUT, reactor=reactor)
        self.views = {path.encode("ascii"): view for path, view in views.items()}
        self._channels: OrderedDict[_AdminChannel, None] = OrderedDict()

    def arrived(self, channel: _AdminChannel) -> None:
        self._channels[channel] = None
        if len(self._channels) > MOST_CONNECTIONS:
            oldest, _ = self._channels.popitem(last=False)
            transport: Any = oldest.transport
            transport.abortConnection()

    def left(self, channel: _AdminChannel) -> None:
        self._channels.pop(channel, None)

    def startFactory(self) -> None:
        pass

    def stopFactory(self) -> None:
        pass

    # twisted.web declares a proxy as the return type, which only HTTP/2 needs.
    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ARG002
        channel: Any = _AdminChannel()
        channel.factory = self
        channel.callLater = self.reactor.callLater
        channel.timeOut = IDLE_TIMEOUT
        return channel

    def log(self, request: Request) -> None:
        pass
