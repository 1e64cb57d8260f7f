"""One HTTP/1.1 request and its answer, limited in size. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import h11

# Bytes of the answer's content, and of everything else in it.
MOST_CONTENT: Final = 262_144
MOST_OVERHEAD: Final = 65_536
_HTTPS_PORT: Final = 443
_TOO_SOON: Final = "the connection ended too soon"


class FetchOutcome(StrEnum):
    """How a fetch ended: label `outcome` of `envelope_jwks_fetches_total`."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    TLS = "tls"
    TIMEOUT = "timeout"
    STATUS = "status"
    TOO_LARGE = "too-large"
    MALFORMED = "malformed"


class FetchFailed(Exception):
    """The fetch brought no usable answer; `outcome` is how it is counted, the text is one line."""

    def __init__(self, outcome: FetchOutcome, text: str) -> None:
        super().__init__(text)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Reply:
    """The content of an answer with status 200, and its headers, with lower-case names."""

    content: bytes
    headers: tuple[tuple[str, str], ...] = ()


class ReplyReader:
    """Makes the request for `url` (`request`, bytes), and reads the answer."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or _HTTPS_PORT
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=16_384)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        asked = h11.Request(method="GET", target=target, headers=[
            ("Host", parts.netloc), ("Accept", "application/jwk-set+json, application/json"),
            ("User-Agent", "envelope"), ("Connection", "close"),
        ])
        self.request = self._http.send(asked) or b""
        self.request += self._http.send(h11.EndOfMessage()) or b""
        self._received = 0
        self._content = bytearray()
        self._headers: tuple[tuple[str, str], ...] = ()

    def feed(self, data: bytes) -> Reply | None:
        """Take the next bytes, b"" at the connection's end; return the answer once it is complete.

        Raises `FetchFailed`.
        """
        self._received += len(data)
        if self._received > MOST_CONTENT + MOST_OVERHEAD:
            raise FetchFailed(FetchOutcome.TOO_LARGE, "the answer is too large")
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA and data:
                    return None
                if isinstance(event, h11.EndOfMessage):
                    return Reply(bytes(self._content), self._headers)
                if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                    raise FetchFailed(FetchOutcome.MALFORMED, _TOO_SOON)
                self._take(event)
        except h11.RemoteProtocolError:
            text = "the answer is not HTTP" if data else _TOO_SOON
            raise FetchFailed(FetchOutcome.MALFORMED, text) from None

    def _take(self, event: object) -> None:
        if isinstance(event, h11.Response):
            if event.status_code != 200:
                redirect = "; redirects are not followed" if event.status_code // 100 == 3 else ""
                raise FetchFailed(
                    FetchOutcome.STATUS, f"the answer is {event.status_code}{redirect}"
                )
            self._headers = tuple(
                (name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers
            )
        elif isinstance(event, h11.Data):
            self._content += event.data
            if len(self._content) > MOST_CONTENT:
                raise FetchFailed(
                    FetchOutcome.TOO_LARGE, f"the answer is larger than {MOST_CONTENT} bytes"
                )
