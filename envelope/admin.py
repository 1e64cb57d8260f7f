"""
The admin endpoints: metrics and health over plain HTTP, for the operator's own network.

Each path is a view, a function without arguments that makes a whole `Answer`; further paths are
further views. The site never reads a body, and never says which software answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Final, TypeAlias

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from twisted.internet.interfaces import IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from envelope.metrics import Metrics

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"

# Seconds without a byte from the client; Prometheus scrapes every 15 to 60 s, so a connection
# that is kept alive is worth keeping for one more scrape.
IDLE_TIMEOUT: Final = 75.0
# Seconds that a closing connection has to go before it is aborted.
ABORT_TIMEOUT: Final = 5.0
# Bytes. No view wants a body; this much is swallowed so that the answer can be read.
MOST_BODY: Final = 16_384
# Bytes of request line and headers.
MOST_HEADERS: Final = 8_192


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer of a view."""

    body: bytes
    status: int = 200
    content_type: str = TEXT


View: TypeAlias = Callable[[], Answer]

_NOT_FOUND = Answer(b"There is nothing at this path.\n", 404)
_WRONG_METHOD = Answer(b"Only GET and HEAD are answered here.\n", 405)


def admin_site(
    metrics: Metrics,
    reasons: Callable[[], list[str]],
    more: Mapping[str, View] | None = None,
    reactor: IReactorTime | None = None,
) -> Site:
    """
    The site that serves `/metrics`, `/livez`, `/readyz`, and whatever paths `more` adds.

    `reasons` says why clients should not be sent here now, a line each; none means ready.
    `reactor` counts the timeouts, the global one when None.
    """
    views: dict[str, View] = {
        "/metrics": lambda: Answer(metrics.text(), content_type=CONTENT_TYPE_PLAIN_0_0_4),
        "/livez": lambda: Answer(b"ok\n"),
        "/readyz": lambda: readiness(reasons()),
        **(more or {}),
    }
    return _AdminSite(_Views(views), reactor)


def readiness(reasons: list[str]) -> Answer:
    """200 without reasons, else 503 with them, as JSON."""
    if reasons:
        return json_answer({"ready": False, "reasons": reasons}, 503)
    return json_answer({"ready": True})


def json_answer(value: object, status: int = 200) -> Answer:
    """`value` as JSON."""
    return Answer(json.dumps(value).encode() + b"\n", status, JSON)


class _Views(Resource):
    isLeaf = True  # noqa: N815 (Resource's own name)

    def __init__(self, views: Mapping[str, View]) -> None:
        super().__init__()
        self._views = {path.encode("ascii"): view for path, view in views.items()}

    def render(self, request: Request) -> bytes:
        answer = self._answer(request)
        request.setResponseCode(answer.status)
        headers = request.responseHeaders
        headers.removeHeader(b"server")
        headers.setRawHeaders(b"cache-control", [b"no-store"])
        headers.setRawHeaders(b"content-type", [answer.content_type.encode("ascii")])
        headers.setRawHeaders(b"content-length", [b"%d" % len(answer.body)])
        headers.setRawHeaders(b"x-content-type-options", [b"nosniff"])
        if answer.status == 405:
            headers.setRawHeaders(b"allow", [b"GET, HEAD"])
        return b"" if request.method == b"HEAD" else answer.body

    def _answer(self, request: Request) -> Answer:
        view = self._views.get(request.path)
        if view is None:
            return _NOT_FOUND
        if request.method not in (b"GET", b"HEAD"):
            return _WRONG_METHOD
        return view()


class _AdminRequest(Request):
    """A request whose body goes nowhere, and whose sender is cut off when it sends a lot."""

    _swallowed = 0

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._swallowed += len(data)
        if self._swallowed > MOST_BODY:
            self.channel.loseConnection()


class _AdminChannel(HTTPChannel):
    totalHeadersSize = MOST_HEADERS  # noqa: N815 (HTTPChannel's own name)
    abortTimeout = ABORT_TIMEOUT  # noqa: N815


class _AdminSite(Site):
    """Site without access log: the scrapes of a quiet day would be most of the log."""

    noisy = False
    displayTracebacks = False

    def __init__(self, resource: Resource, reactor: IReactorTime | None) -> None:
        super().__init__(resource, _AdminRequest, timeout=IDLE_TIMEOUT, reactor=reactor)

    def log(self, request: Request) -> None:
        pass
