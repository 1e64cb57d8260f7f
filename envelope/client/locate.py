"""Asks M-Lab's Locate service, version 2, for machines that have room, and for tokens for them.

The answer is JSON: `results`, each with `machine` and `urls` (a service's URL by its template), or
`error` with `title`, `status` and `detail` (RFC 7807).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred

from envelope.client.answers import Answer, AnswerReader
from envelope.client.connecting import Exchange, connect
from envelope.client.outcomes import Refused, shown
from envelope.client.urls import ServerURL
from envelope.protocol import ACCESS_PATH

NEAREST: Final = "https://locate.measurementlab.net/v2/nearest/"
# Bytes of an answer's content that are read.
MOST_CONTENT: Final = 512_000


class LocateFailed(Exception):
    """Locate named no machine; the text is one line."""


async def locate(
    reactor: Any, url: str, service: str, key: str | None, *, patience: float,
    insecure: bool = False, user_agent: str = "envelope",
) -> list[str]:
    """The URLs to open, best first, that Locate at `url` gives out for `service`, NAME/TYPE.

    `key` is the template whose URL is taken; None: the one whose path is the access path. Raises
    `LocateFailed`, after `patience` reactor seconds at the latest, and `BadURL`. With `insecure`
    Locate's certificate is not verified.
    """
    path, mark, query = url.partition("?")
    asked = ServerURL.parse(f"{path.rstrip('/')}/{service}{mark}{query}", "http", "https")
    reader = AnswerReader(asked.authority, asked.target, [
        ("Accept", "application/json"), ("User-Agent", user_agent), ("Connection", "close"),
        # Without it any coding is acceptable (RFC 9110 section 12.5.3).
        ("Accept-Encoding", "identity"),
    ], MOST_CONTENT)
    exchange = Exchange(asked, reader, insecure)

    async def ask() -> Answer:
        await connect(reactor, asked, exchange, None, patience)
        return await exchange.answered

    def too_late(_result: object, seconds: float) -> NoReturn:
        raise LocateFailed(f"Locate at {asked.server} did not answer within {seconds:g} s")

    try:
        answer = await Deferred.fromCoroutine(ask()).addTimeout(patience, reactor, too_late)
    except Refused as refused:
        raise LocateFailed(f"Locate at {refused}") from None
    finally:
        if exchange.transport is not None:
            exchange.abort()
    return urls_of(answer, key)


def urls_of(answer: Answer, key: str | None) -> list[str]:
    """The URLs in an answer of Locate; raises `LocateFailed`."""
    content = _object(answer)
    error = content.get("error")
    if isinstance(error, Mapping):
        words = [str(error[name]) for name in ("title", "detail") if error.get(name)]
        status = shown(str(error.get("status") or answer.status))
        text = shown(": ".join(words)) or "an error"
        raise LocateFailed(f"Locate: {text} ({status}){_advice(answer)}")
    if answer.status != 200:
        raise LocateFailed(f"Locate answered with {_status(answer)}{_advice(answer)}")
    results = content.get("results")
    offers = [
        result["urls"] for result in (results if isinstance(results, list) else [])
        if isinstance(result, Mapping) and isinstance(result.get("urls"), Mapping)
    ]
    if not offers:
        raise LocateFailed("Locate knows no machine for this service")
    urls = [url for url in (_pick(offer, key) for offer in offers) if url is not None]
    if not urls:
        what = f"under the key {key!r}" if key else f"with the one path {ACCESS_PATH}"
        raise LocateFailed(f"Locate's machines have no URL {what}: {_keys(offers[0])}")
    return urls


def _object(answer: Answer) -> Mapping[str, Any]:
    if not answer.whole:
        cut = len(answer.content) < MOST_CONTENT
        what = "is incomplete" if cut else f"is larger than {MOST_CONTENT} bytes"
        raise LocateFailed(f"Locate's answer ({answer.status}) {what}")
    try:
        content = json.loads(answer.content)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, Mapping):
        return content
    # A front end before Locate answers by itself, in HTML, when Locate is overloaded or down.
    raise LocateFailed(f"Locate answered with {_status(answer)}, and not in JSON{_advice(answer)}")


def _status(answer: Answer) -> str:
    return "429 (too many requests)" if answer.status == 429 else str(answer.status)


def _advice(answer: Answer) -> str:
    if answer.status // 100 == 3:
        return "; redirects are not followed"
    wait = answer.retry_after
    return "" if wait is None else f"; it asks to wait for {wait} s"


def _pick(offer: Mapping[str, Any], key: str | None) -> str | None:
    """The URL of one machine; of two for the access path the one with TLS; None without one."""
    if key:
        url = offer.get(key)
        return url if isinstance(url, str) else None
    found = [url for url in offer.values() if isinstance(url, str) and _is_access(url)]
    if len(found) > 1:
        found = [url for url in found if url.startswith("wss:")]
    return found[0] if len(found) == 1 else None


def _is_access(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.path == ACCESS_PATH and parts.scheme in ("ws", "wss")


def _keys(offer: Mapping[str, Any]) -> str:
    return f"it has {shown(', '.join(offer))}" if offer else "it has none"
