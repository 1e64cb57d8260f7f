"""The opening handshake: bytes are parsed to a request, the request to an `AccessRequest` (pure).

Also writes the responses. Stricter than RFC 9112, which lets a server tolerate bare LF and folded
lines: a request that two parsers could read differently is refused. The result never depends on how
the bytes were split into segments.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote_plus

import h11

from envelope.protocol import SUBPROTOCOL
from envelope.sessions.admission import AccessRequest
from envelope.sessions.answers import (
    BAD_UPGRADE,
    NOT_AN_UPGRADE,
    WRONG_SUBPROTOCOL,
    WRONG_VERSION,
    Refusal,
    Refused,
)

BAD_REQUEST: Final = Refusal(400, None, "The request is malformed.")
HEAD_TOO_LARGE: Final = Refusal(431, None, "The head of the request is too large.")

_CR: Final = 0x0D
_TOKEN: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)
_REQUEST_LINE: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+ [\x21-\x7e]+ HTTP/1\.[01]")
_ABSOLUTE: Final = re.compile(r"https?://[-\w.~!$&'()*+,;=:%@\[\]]+(?=/)", re.ASCII | re.IGNORECASE)
_HOST: Final = re.compile(rb"[-\w.~!$&'()*+;=:%\[\]]*", re.ASCII)
# RFC 6455 section 1.3.
_WEBSOCKET: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"[\x21-\x7e]{1,64}")


class HeadReader:
    """Collects one request's head, up to `max_bytes` and `max_lines`, line ends included.

    Each line is checked when it ends, so that bytes that are not HTTP are refused at once.
    """

    __slots__ = ("_buffer", "_line", "_lines", "_max_bytes", "_max_lines", "_seen")

    def __init__(self, max_bytes: int, max_lines: int) -> None:
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._buffer = bytearray()
        self._lines = 0
        self._line = 0
        self._seen = 0

    def feed(self, data: bytes) -> tuple[h11.Request, bytes] | None:
        """Add bytes; once the head is complete, return the request and the bytes after it.

        Raises `Refused`. After that, or after a request, the reader must not be used again.
        """
        self._buffer += data
        # The first byte is TLS's or not text at all: a line end may never arrive.
        if self._buffer and self._buffer[0] not in _TOKEN:
            raise Refused(BAD_REQUEST)
        while (end := self._buffer.find(b"\n", self._seen)) >= 0:
            if end >= self._max_bytes:
                raise Refused(HEAD_TOO_LARGE)
            if self._last_line(end):
                return _parse(bytes(self._buffer[: end + 1])), bytes(self._buffer[end + 1 :])
            self._line = self._seen = end + 1
        self._seen = len(self._buffer)
        if self._seen > self._max_bytes:
            raise Refused(HEAD_TOO_LARGE)
        return None

    def _last_line(self, end: int) -> bool:
        line = self._buffer[self._line : end]
        if not line or line.pop() != _CR or _CR in line or line.startswith((b" ", b"\t")):
            raise Refused(BAD_REQUEST)
        if self._line == 0 and not _REQUEST_LINE.fullmatch(line):
            raise Refused(BAD_REQUEST)
        self._lines += 1
        if self._lines > self._max_lines:
            raise Refused(HEAD_TOO_LARGE)
        return not line


def _parse(head: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError:
        raise Refused(BAD_REQUEST) from None
    assert isinstance(request, h11.Request), "a whole head is a request"
    hosts = [value for name, value in request.headers if name == b"host"]
    if not all(map(_HOST.fullmatch, hosts)):
        raise Refused(BAD_REQUEST)
    return request


class _Fields:
    """The header fields of a request by name; searching h11's own sequence is slow."""

    def __init__(self, request: h11.Request) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in request.headers:
            self._values.setdefault(name, []).append(value)

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this name."""
        return self._values.get(name, [])

    def elements(self, name: bytes) -> Iterator[bytes]:
        """Yield the non-empty elements of a comma-separated list (RFC 9110 section 5.6.1)."""
        for value in self.values(name):
            yield from filter(None, (element.strip(b" \t") for element in value.split(b",")))


@dataclass(frozen=True, slots=True)
class Handshake:
    """A parsed request; `key` is its `Sec-WebSocket-Key`, valid only without an upgrade fault."""

    request: AccessRequest
    key: str


def parse_handshake(request: h11.Request) -> Handshake:
    """Parse what `request` asks for; never raises, faults are in the result."""
    path, _, query = _origin_form(request.target.decode("ascii")).partition("?")
    fields = _Fields(request)
    offered = [name.decode("latin-1") for name in fields.elements(b"sec-websocket-protocol")]
    access = AccessRequest(
        method=request.method.decode("ascii"),
        path=path,
        token=access_token(query),
        upgrade_fault=_upgrade_fault(request, fields, offered),
        subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None,
    )
    return Handshake(access, b"".join(fields.values(b"sec-websocket-key")).decode("latin-1"))


def _origin_form(target: str) -> str:
    """The target without the scheme and host that it may have (RFC 9112 3.2.2, RFC 6455 4.2.1).

    The host is not compared with anything, as that of the Host field is not.
    """
    absolute = _ABSOLUTE.match(target)
    return target if absolute is None else target[absolute.end() :]


def access_token(query: str) -> str | None:
    """The first `access_token` of a query string, percent-decoded; None if there is none."""
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "access_token" or ("%" in name and unquote_plus(name) == "access_token"):
            return unquote_plus(value)
    return None


def _upgrade_fault(
    request: h11.Request, fields: _Fields, offered: list[str]
) -> Refusal | None:
    """The answer to a request that is not an opening handshake (RFC 6455 section 4.2.1)."""
    upgrades = {element.lower() for element in fields.elements(b"upgrade")}
    connection = {element.lower() for element in fields.elements(b"connection")}
    keys = fields.values(b"sec-websocket-key")
    versions = fields.values(b"sec-websocket-version")
    if request.http_version != b"1.1":
        return BAD_UPGRADE
    if b"websocket" not in upgrades:
        return NOT_AN_UPGRADE
    if b"upgrade" not in connection or _has_body(fields) or len(versions) > 1:
        return BAD_UPGRADE
    if versions != [b"13"]:
        return WRONG_VERSION
    # RFC 6455 wants 16 bytes in base64. Clients in use send fewer, and it does not matter.
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        return BAD_UPGRADE
    if offered and SUBPROTOCOL not in offered:
        return WRONG_SUBPROTOCOL
    return None


def _has_body(fields: _Fields) -> bool:
    """Whether the bytes after the head would belong to the request and not to WebSocket."""
    length = fields.values(b"content-length")
    return bool(fields.values(b"transfer-encoding")) or any(int(text) for text in length)


def switching_response(key: str, subprotocol: str | None) -> bytes:
    """The 101 response to a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2)."""
    digest = hashlib.sha1(key.encode("latin-1") + _WEBSOCKET).digest()  # noqa: S324 (as the RFC says)
    lines = (
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: WebSocket",
        b"Connection: Upgrade",
        *((b"Sec-WebSocket-Protocol: " + subprotocol.encode("ascii"),) if subprotocol else ()),
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
        b"\r\n",
    )
    return b"\r\n".join(lines)


def refusal_response(refusal: Refusal, method: str = "GET") -> bytes:
    """The response to a request with `method`; the connection is closed after it."""
    body = f"{refusal.text}\n".encode()
    headers = (
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        *refusal.headers,
    )
    head = f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{head}\r\n".encode("ascii") + (b"" if method == "HEAD" else body)
