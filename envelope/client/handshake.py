"""The opening handshake of a client (RFC 6455 section 4.1): the request, and what must answer it.

Pure.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from envelope.client.answers import Answer, AnswerReader
from envelope.client.urls import ServerURL
from envelope.protocol import SUBPROTOCOL

# RFC 6455 section 1.3.
_WEBSOCKET: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
# Bytes of a refusal's content that are read. The service's own are one line.
MOST_TEXT: Final = 4096


def handshake_reader(url: ServerURL, key: bytes, user_agent: str) -> AnswerReader:
    """A reader that asks `url` for an envelope; `key` is 16 random bytes in base64."""
    return AnswerReader(url.authority, url.target, [
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key.decode()), ("Sec-WebSocket-Protocol", SUBPROTOCOL),
        ("User-Agent", user_agent),
    ], MOST_TEXT)


def fault_of(answer: Answer, key: bytes) -> str | None:
    """What is wrong with an answer of status 101, in one line; None if nothing is."""
    accept = base64.b64encode(hashlib.sha1(key + _WEBSOCKET).digest()).decode()  # noqa: S324
    connection = {word.strip().lower() for word in answer.header("connection").split(",")}
    if answer.header("upgrade").lower() != "websocket" or "upgrade" not in connection:
        return "the server switched to another protocol than WebSocket"
    if answer.header("sec-websocket-accept") != accept:
        return "the server's Sec-WebSocket-Accept does not belong to the request"
    if answer.header("sec-websocket-extensions"):
        return "the server chose an extension that was not offered"
    if answer.header("sec-websocket-protocol") not in ("", SUBPROTOCOL):
        return "the server chose a sub-protocol that was not offered"
    return None
