"""How long a fetched answer is fresh, and how long to wait until the next fetch. Pure.

Thousands of services may ask one server, and one event may concern all of them: its failure, its
return, a start of the whole fleet, tokens with a new key. So each wait has a random part, by
`chance`, a number from 0 to 1 that is drawn for it.

Written here because the libraries that read these headers belong to HTTP clients that do not run
under Twisted.
"""

from __future__ import annotations

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Final

# Seconds. Less would burden the server; more would keep a withdrawn key in use.
SHORTEST: Final = 60.0
LONGEST: Final = 86_400.0
# Seconds, for an answer that names no lifetime.
DEFAULT_LIFETIME: Final = 3_600.0
# Seconds: the pause after the first failure in a row, and the longest one.
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 600.0
# The part of a lifetime, and of a pause, after which the next fetch may come.
_EARLIEST_REFRESH: Final = 0.8
_EARLIEST_RETRY: Final = 0.5
# Seconds over which fetches are spread at least, when answers stay fresh for a minute or less.
_LEAST_SPREAD: Final = 15.0
# Seconds from one fetch to the next that an unknown kid may cause: anybody can send such tokens.
LEAST_BETWEEN: Final = 60.0
# Seconds over which fetches for an unknown kid are spread, whose clients wait for the key; and over
# which they are spread when the last fetch is less than `LEAST_BETWEEN` ago. A flood of such tokens
# on a whole fleet causes the second kind, minute after minute; within 3 s each time, the services
# would stay in step (tests/support/fleet.py).
_UNKNOWN_KID_SPREAD: Final = 3.0
_REPEATED_SPREAD: Final = 30.0


def lifetime(headers: Iterable[tuple[str, str]], now: float) -> float:
    """Seconds that an answer is fresh (RFC 9111 section 4.2.1), from `SHORTEST` to `LONGEST`.

    `headers` have lower-case names. `now` (seconds since the epoch) replaces a missing Date.
    """
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return min(LONGEST, max(SHORTEST, _stated_lifetime(values, now)))


def _stated_lifetime(values: dict[str, list[str]], now: float) -> float:
    directives: dict[str, str] = {}
    for part in ",".join(values.get("cache-control", [])).split(","):
        name, _, value = part.partition("=")
        # The first of two contradictory ones counts.
        directives.setdefault(name.strip().lower(), value.strip(' \t"'))
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    if "max-age" in directives:
        return _seconds(directives["max-age"]) - _seconds(values.get("age", ["0"])[0])
    if "expires" in values:
        expires, date = _date(values["expires"][0]), _date(values.get("date", [""])[0])
        # An invalid date, such as "0", means expired (RFC 9111 section 5.3).
        return 0.0 if expires is None else expires - (now if date is None else date)
    return DEFAULT_LIFETIME


def _seconds(text: str) -> float:
    # An invalid number means stale (RFC 9111 section 4.2.1); none needs more digits.
    return float(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0.0


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def refresh_after(lifetime: float, chance: float) -> float:
    """Seconds until an answer of this lifetime is fetched again: after 80 to 100 % of it.

    But never within `SHORTEST`. A lifetime near that may be exceeded, by 15 s at most.
    """
    earliest = max(SHORTEST, _EARLIEST_REFRESH * lifetime)
    latest = max(SHORTEST + _LEAST_SPREAD, lifetime)
    return earliest + chance * (latest - earliest)


def retry_after(failures: int, chance: float) -> float:
    """Seconds until the next fetch after `failures` in a row (1 or more).

    Half to all of a pause that doubles from `FIRST_PAUSE` up to `LONGEST_PAUSE`.
    """
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 20))
    return pause * (_EARLIEST_RETRY + (1 - _EARLIEST_RETRY) * chance)


def unknown_kid_delay(since: float, chance: float) -> float:
    """Seconds until an unknown `kid` may cause a fetch, `since` seconds after the last one."""
    if since >= LEAST_BETWEEN:
        return chance * _UNKNOWN_KID_SPREAD
    return LEAST_BETWEEN - since + chance * _REPEATED_SPREAD
