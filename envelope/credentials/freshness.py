"""How long a fetched answer may be used, and when to ask again after a failure. Pure.

Small enough to be our own: the libraries that understand these headers belong to HTTP clients
that do not run under Twisted.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Final

# Seconds. Less would be a burden for the server, more would let a withdrawn key live on.
SHORTEST: Final = 60.0
LONGEST: Final = 86_400.0
# Seconds, for an answer that does not say.
UNTOLD: Final = 3_600.0
# Seconds: the first pause after a failure, and the longest.
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0


def lifetime(headers: Iterable[tuple[str, str]], now: float) -> float:
    """Seconds that an answer is fresh (RFC 9111 section 4.2.1), from `SHORTEST` to `LONGEST`.

    `headers` have lower-case names; `now` is seconds since the epoch, for an answer without Date.
    """
    told: dict[str, list[str]] = {}
    for name, value in headers:
        told.setdefault(name, []).append(value)
    return min(LONGEST, max(SHORTEST, _told_lifetime(told, now)))


def _told_lifetime(told: dict[str, list[str]], now: float) -> float:
    directives: dict[str, str] = {}
    for part in ",".join(told.get("cache-control", [])).split(","):
        name, _, value = part.partition("=")
        # Of two that contradict each other the first counts.
        directives.setdefault(name.strip().lower(), value.strip(' \t"'))
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    if "max-age" in directives:
        return _seconds(directives["max-age"]) - _seconds(told.get("age", ["0"])[0])
    if "expires" in told:
        expires, date = _date(told["expires"][0]), _date(told.get("date", [""])[0])
        # What is not a date has expired, "0" above all (RFC 9111 section 5.3).
        return 0.0 if expires is None else expires - (now if date is None else date)
    return UNTOLD


def _seconds(text: str) -> float:
    # What cannot be read is stale (RFC 9111 section 4.2.1), and no number needs more digits.
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0.0


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row (at least one); doubles up to a limit."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
