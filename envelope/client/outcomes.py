"""How an attempt to open an envelope fails, and how one that was opened ends. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from envelope.protocol import End
from envelope.text import printable

# Characters of a server's text that are kept.
_MOST_TEXT: Final = 300
# What looks like a JSON Web Token or the beginning of one: base64url of `{"`.
_LIKE_A_TOKEN: Final = re.compile(r"eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*")
_HIDDEN: Final = "(token)"


class Ended(StrEnum):
    """How an envelope ended, as the server's close code says it (RFC 6455 section 7.4)."""

    CLOSED = "closed"  # we closed it, or the server did with a code that no other member has
    DEADLINE = "deadline"
    REVOKED = "revoked"
    IDLE = "idle"
    STOPPING = "stopping"
    DATA = "data"  # the server received data; this client never sends any
    LOST = "lost"  # the connection ended without a close frame, or the server broke the protocol

    @classmethod
    def of_code(cls, code: int | None) -> Ended:
        """The end that a close frame with `code` tells; None: a close frame without a code."""
        return _ENDS.get(code, cls.CLOSED)


_ENDS: Final = {
    End.DEADLINE.code: Ended.DEADLINE, End.REVOKED.code: Ended.REVOKED, End.IDLE.code: Ended.IDLE,
    End.SHUTDOWN.code: Ended.STOPPING, End.DATA.code: Ended.DATA, None: Ended.CLOSED,
}


class Refused(Exception):
    """No envelope could be opened.

    `server` is HOST:PORT. `status` is the answer's HTTP status, None without an answer. `text` is
    one line: the server's own text, or what went wrong. `retry_after` is in seconds, from the
    answer's `Retry-After`; None if it has none, or a date.
    """

    def __init__(
        self, server: str, status: int | None, text: str, retry_after: int | None = None
    ) -> None:
        super().__init__(f"{server}: {text}" if status is None else f"{server}: {status} {text}")
        self.server = server
        self.status = status
        self.text = text
        self.retry_after = retry_after


def shown(text: str, url: str = "") -> str:
    """A server's text made fit to show: one line, not long, without the access token of `url`."""
    for name, token in parse_qsl(urlsplit(url).query):
        if name == "access_token" and token:
            text = text.replace(token, _HIDDEN)
    text = _LIKE_A_TOKEN.sub(_HIDDEN, text)
    text = printable(" ".join(text.split()))
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
