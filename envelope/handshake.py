"""
One HTTP request, as bytes, into the question that admission answers. Pure.

h11 parses; what it is more lenient about than RFC 9112 is refused before it sees it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_plus

import h11

from envelope.admission import (
    BAD_UPGRADE,
    NOT_AN_UPGRADE,
    SUBPROTOCOL,
    WRONG_SUBPROTOCOL,
    WRONG_VERSION,
    AccessRequest,
    Refusal,
)

# A token has at most 8 kB; the rest is for what browsers send along.
LARGEST_HEAD: Final = 16384
MOST_LINES: Final = 100
_END: Final = b"\r\n\r\n"
_REQUEST_LINE: Final = re.compile(rb"[A-Z]{1,20} [\x21-\x7e]+ HTTP/1\.[01]")
_KEY: Final = re.compile(r"[\x21-\x7e]{1,64}")

BAD_REQUEST: Final = Refusal(400, "", "That is not an HTTP/1.1 request.")
TOO_LARGE: Final = Refusal(431, "", "The request's header is too large.")


class BadRequest(Exception):
    """The bytes are no request that is answered here; `refusal` is what they get instead."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


def split_head(buffer: bytes) -> tuple[bytes, bytes] | None:
    """
    The head of a request and what follows it, or None while more bytes are needed.

    Raises `BadRequest` as soon as no further byte could make it right.
    """
    end = buffer.find(_END)
    head = buffer if end < 0 else buffer[:end + 2]
    if len(head) > LARGEST_HEAD or head.count(b"\n") > MOST_LINES:
        raise BadRequest(TOO_LARGE)
    lines = head.split(b"\r\n")
    complete, rest = lines[:-1], lines[-1]
    if complete and not _REQUEST_LINE.fullmatch(complete[0]):
        raise BadRequest(BAD_REQUEST)
    if buffer and not buffer[:1].isalpha():
        raise BadRequest(BAD_REQUEST)
    # Folded lines, bare CR and bare LF are where two parsers come to differ (RFC 9112 section 2.2).
    if any(b"\r" in line or b"\n" in line or line[:1] in (b" ", b"\t") for line in complete):
        raise BadRequest(BAD_REQUEST)
    if b"\n" in rest or b"\r" in rest[:-1]:
        raise BadRequest(BAD_REQUEST)
    return None if end < 0 else (buffer[:end + 4], buffer[end + 4:])


def parse(head: bytes) -> tuple[AccessRequest, str]:
    """The request in `head`, and its Sec-WebSocket-Key; raise `BadRequest`."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LARGEST_HEAD + 4)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        raise BadRequest(BAD_REQUEST) from None
    if not isinstance(event, h11.Request):
        raise BadRequest(BAD_REQUEST)
    path, _, query = event.target.decode("ascii").partition("?")
    if not path.startswith("/"):
        raise BadRequest(BAD_REQUEST)
    headers: dict[str, list[str]] = {}
    for name, value in event.headers:
        headers.setdefault(name.decode("ascii"), []).append(value.decode("latin-1"))
    fault, offered = _upgrade(event.http_version, headers)
    key = headers.get("sec-websocket-key", [""])[0]
    request = AccessRequest(event.method.decode("ascii"), path, _token(query), fault, offered)
    return request, key


def _token(query: str) -> str | None:
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if name == "access_token":
            return unquote_plus(value, errors="replace")
    return None


def _words(headers: dict[str, list[str]], name: str) -> list[str]:
    return [word.strip() for value in headers.get(name, []) for word in value.split(",")]


def _upgrade(version: bytes, headers: dict[str, list[str]]) -> tuple[Refusal | None, str | None]:
    """What is wrong with the WebSocket handshake (RFC 6455 section 4.2.1), and the sub-protocol."""
    if "websocket" not in (word.lower() for word in _words(headers, "upgrade")):
        return NOT_AN_UPGRADE, None
    if version != b"1.1" or "upgrade" not in (w.lower() for w in _words(headers, "connection")):
        return BAD_UPGRADE, None
    if headers.get("sec-websocket-version") != ["13"]:
        several = len(headers.get("sec-websocket-version", [])) > 1
        return BAD_UPGRADE if several else WRONG_VERSION, None
    keys = headers.get("sec-websocket-key", [])
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        return BAD_UPGRADE, None
    if "content-length" in headers or "transfer-encoding" in headers:
        return BAD_UPGRADE, None
    if "sec-websocket-protocol" not in headers:
        return None, None
    if SUBPROTOCOL not in _words(headers, "sec-websocket-protocol"):
        return WRONG_SUBPROTOCOL, None
    return None, SUBPROTOCOL
