"""One HTTP/1.1 request and its answer, limited in size. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import h11

# Bytes of an answer's head, and of everything but the content: chunk heads, trailers, 1xx answers.
_MOST_HEAD: Final = 16_384
_MOST_OVERHEAD: Final = 65_536


class NoAnswer(Exception):
    """What arrived is not an answer; the text is one line."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. Names of `headers` are in lower case.

    `whole` is False if the content was larger than allowed or ended too soon; then `content` is
    what arrived of it, at most as much as allowed.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes
    whole: bool

    def header(self, name: str) -> str:
        """The values of all headers of this name as one list (RFC 9110 section 5.3)."""
        return ", ".join(value for known, value in self.headers if known == name)

    @property
    def text(self) -> str:
        """The content as text, what is not UTF-8 replaced."""
        return self.content.decode(errors="replace")

    @property
    def retry_after(self) -> int | None:
        """Seconds (RFC 9110 section 10.2.3); None if it is missing or a date."""
        value = self.header("retry-after")
        return int(value) if value.isascii() and value.isdigit() and len(value) <= 9 else None


class AnswerReader:
    """Makes a GET request (`request`, bytes), and reads the answer.

    Reads at most `most_content` bytes of content. After an answer with status 101, `rest` has the
    bytes that followed it.
    """

    def __init__(
        self, authority: str, target: str, headers: Sequence[tuple[str, str]], most_content: int
    ) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_HEAD)
        asked = h11.Request(method="GET", target=target, headers=[("Host", authority), *headers])
        self.request = self._http.send(asked) or b""
        self.request += self._http.send(h11.EndOfMessage()) or b""
        self.rest = b""
        self._most = most_content
        self._received = 0
        self._head: h11.Response | None = None
        self._content = bytearray()

    def feed(self, data: bytes) -> Answer | None:
        """Take the next bytes, b"" at the connection's end; return the answer once there is one.

        Raises `NoAnswer`.
        """
        self._received += len(data)
        try:
            self._http.receive_data(data)
            return self._read(bool(data))
        except h11.RemoteProtocolError:
            if self._head is not None:
                return self._answer(whole=False)
            raise NoAnswer(
                "the answer is not HTTP" if data else "the connection ended without an answer"
            ) from None

    def _read(self, more: bool) -> Answer | None:
        while True:
            event = self._http.next_event()
            if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                self.rest = self._http.trailing_data[0]
                return Answer(101, _texts(event), b"", True)
            if isinstance(event, h11.Response):
                self._head = event
            elif isinstance(event, h11.Data):
                self._content += event.data
            elif isinstance(event, h11.EndOfMessage):
                return self._answer(whole=True)
            if self._head is not None and len(self._content) > self._most:
                return self._answer(whole=False)
            if self._received > self._most + _MOST_OVERHEAD:
                raise NoAnswer("the answer is too large")
            if event is h11.NEED_DATA and more:
                return None
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                raise NoAnswer("the connection ended without an answer")

    def _answer(self, *, whole: bool) -> Answer:
        assert self._head is not None, "the head comes before the content"
        whole = whole and len(self._content) <= self._most
        content = bytes(self._content[: self._most])
        return Answer(self._head.status_code, _texts(self._head), content, whole)


def _texts(head: h11.Response | h11.InformationalResponse) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
