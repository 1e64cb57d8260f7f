"""What the sites for operators answer with. Pure."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
# The version of the format that every Prometheus and compatible scraper reads.
PROMETHEUS: Final = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer; `headers` are those besides what every answer has."""

    body: bytes
    status: int = 200
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()


View: TypeAlias = Callable[[], Answer | Awaitable[Answer]]

NOT_FOUND: Final = Answer(b"There is nothing at this path.\n", 404)
WRONG_METHOD: Final = Answer(
    b"Only GET and HEAD are answered here.\n", 405, headers=(("Allow", "GET, HEAD"),)
)
WRONG_HOST: Final = Answer(
    b"This page is served under an IP address, localhost, or a name of --status-host.\n", 421
)
TOO_MANY_STREAMS: Final = Answer(
    b"Too many pages are open. Close one.\n", 503, headers=(("Retry-After", "10"),)
)
BROKEN: Final = Answer(b"Internal error; the log says why.\n", 500)


def readiness(reasons: Sequence[str], warnings: Sequence[str]) -> Answer:
    """200 without reasons, else 503, as JSON with the reasons and warnings that there are."""
    told: dict[str, object] = {"ready": not reasons}
    if reasons:
        told["reasons"] = [*reasons]
    if warnings:
        told["warnings"] = [*warnings]
    return Answer(json.dumps(told).encode() + b"\n", 503 if reasons else 200, JSON)
