"""A small HTTP server for operators: fixed paths, GET and HEAD, nothing that changes anything.

Each path has a view, which returns a complete `Answer` at once or later, or a stream that goes on.
The site never reads a request's body, and no answer names the server's software.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, HTTPFactory, Request, datetimeToString

from envelope.admin.answers import (
    BROKEN,
    NOT_FOUND,
    TOO_MANY_STREAMS,
    WRONG_HOST,
    WRONG_METHOD,
    Answer,
    View,
)
from envelope.admin.crowd import Crowd
from envelope.runtime.internals import require, require_use

_log = Logger(namespace="envelope.admin")

# Methods that are called with a request's body, and that Twisted may change.
require(Request, "handleContentChunk")
require_use(HTTPChannel.allHeadersReceived, "gotLength")

# Seconds without a byte from the client. Prometheus scrapes every 15 to 60 s on one connection.
IDLE_TIMEOUT: Final = 75
ABORT_TIMEOUT: Final = 5  # seconds from the close of a connection until it is aborted
# When there are more connections, `Crowd` tells which one is dropped.
MOST_CONNECTIONS: Final = 64
# Streams; others stay free for probes.
MOST_STREAMS: Final = 32
# Bytes of a request's body that are read and discarded, so that the client can read the answer.
MOST_BODY: Final = 16_384
# Bytes of request line and headers.
MOST_HEADERS: Final = 8_192

# Reason phrases that Twisted does not know (RFC 9110 section 15.5.20).
_PHRASES: Final = {421: b"Misdirected Request"}


class Outlet(Protocol):
    """Where a stream writes to: one client's answer, which goes on until the connection ends."""

    def write(self, data: bytes) -> None:
        """Send `data` after what was written before."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Call the producer's `pauseProducing` while the client does not read fast enough."""

    def abort(self) -> None:
        """End the connection now."""


class Feed(Protocol):
    """One client's end of a stream."""

    @property
    def stalls(self) -> bool:
        """Whether the client does not read what it was sent."""

    def close(self) -> None:
        """The connection has ended."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on; `begin` is called once the headers are sent."""

    content_type: str
    begin: Callable[[Outlet], Feed]


@dataclass(frozen=True, slots=True)
class Pages:
    """What a site serves: `views` and `streams` by path, and `headers` of every answer.

    `is_own` takes the values of a request's `Host` headers, and tells whether it is for this site.
    """

    views: Mapping[str, View]
    streams: Mapping[str, Stream]
    headers: tuple[tuple[str, str], ...] = ()
    is_own: Callable[[list[str]], bool] = lambda _: True


class _Request(Request):
    """One request; its body is discarded, and a long one ends the connection."""

    _discarded = 0
    _lost = False
    feed: Feed | None = None

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MOST_BODY:
            self.abort()

    def abort(self) -> None:
        """End the connection now."""
        transport: Any = self.channel.transport
        transport.abortConnection()

    def process(self) -> None:
        channel: Any = self.channel
        site: Site = channel.factory
        answer = self._answer(site)
        if isinstance(answer, Stream):
            self._begin(site, channel, answer)
        elif isinstance(answer, Answer):
            self._finish(answer)
        else:
            Deferred.fromCoroutine(_waited(answer)).addCallback(self._finish)

    def _finish(self, answer: Answer) -> None:
        if self._lost:
            return
        channel: Any = self.channel
        site: Site = channel.factory
        self.setResponseCode(answer.status, _PHRASES.get(answer.status))
        self.setHeader("Content-Length", str(len(answer.body)))
        self._set_headers(answer.content_type, (*site.pages.headers, *answer.headers))
        site.crowd.asked(channel)
        self.write(b"" if self.method == b"HEAD" else answer.body)
        self.finish()

    def connectionLost(self, reason: Failure) -> None:
        self._lost = True
        if self.feed is not None:
            self.feed.close()
        super().connectionLost(reason)

    def _begin(self, site: Site, channel: Any, stream: Stream) -> None:
        self._set_headers(stream.content_type, site.pages.headers)
        self.write(b"")
        if self.method == b"HEAD":
            self.finish()
            return
        site.crowd.streams_to(channel)
        channel.feed = self.feed = stream.begin(self)

    def _set_headers(self, content_type: str, more: tuple[tuple[str, str], ...]) -> None:
        for name, value in (
            ("Date", datetimeToString()),
            ("Cache-Control", "no-store"),
            ("Content-Type", content_type),
            ("X-Content-Type-Options", "nosniff"),
            *more,
        ):
            self.setHeader(name, value)

    def _answer(self, site: Site) -> Answer | Awaitable[Answer] | Stream:
        hosts = self.requestHeaders.getRawHeaders(b"host", [])
        if not site.pages.is_own([host.decode("latin-1") for host in hosts]):
            return WRONG_HOST
        if self.method not in (b"GET", b"HEAD"):
            return WRONG_METHOD
        stream = site.streams.get(self.path)
        if stream is not None:
            full = site.crowd.streams >= MOST_STREAMS and self.method == b"GET"
            return TOO_MANY_STREAMS if full else stream
        view = site.views.get(self.path)
        if view is None:
            return NOT_FOUND
        try:
            return view()
        except Exception:
            _log.failure("a page of the admin site could not be made")
            return BROKEN


async def _waited(answer: Awaitable[Answer]) -> Answer:
    try:
        return await answer
    except Exception:
        _log.failure("a page of the admin site could not be made")
        return BROKEN


class _Channel(HTTPChannel):
    requestFactory = _Request
    totalHeadersSize = MOST_HEADERS
    abortTimeout = ABORT_TIMEOUT
    feed: Feed | None = None

    def connectionMade(self) -> None:
        dropped = self.factory.crowd.arrived(self)
        if dropped is not None:
            dropped.transport.abortConnection()
        if dropped is not self:
            super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.crowd.left(self)
        self.feed = None
        super().connectionLost(reason)

    @property
    def stalls(self) -> bool:
        return self.feed is not None and self.feed.stalls


class Site(HTTPFactory):
    """Serves `pages`, without sessions, Server header, and access log, which scrapes would fill.

    `reactor` runs the timeouts; None is the global one.
    """

    noisy = False

    def __init__(self, pages: Pages, reactor: IReactorTime | None = None) -> None:
        super().__init__(timeout=IDLE_TIMEOUT, reactor=reactor)
        self.pages = pages
        self.views = {path.encode("ascii"): view for path, view in pages.views.items()}
        self.streams = {path.encode("ascii"): stream for path, stream in pages.streams.items()}
        self.crowd: Crowd[_Channel] = Crowd(MOST_CONNECTIONS, lambda channel: channel.stalls)

    def startFactory(self) -> None:
        """See `Factory`; there is no log to open."""

    def stopFactory(self) -> None:
        """See `Factory`."""

    # twisted.web declares a proxy as the return type, which only HTTP/2 needs.
    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ARG002
        """See `Factory`."""
        channel: Any = _Channel()
        channel.factory = self
        channel.callLater = self.reactor.callLater
        channel.timeOut = IDLE_TIMEOUT
        return channel

    def log(self, request: Request) -> None:
        """See `HTTPFactory`; nothing is logged."""
