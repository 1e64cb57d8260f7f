"""Readers of option values: each takes the text of one value, or raises `ValueError`.

The error's text is one line that says what was expected; `envelope.config.options` puts the name
of the option before it. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from envelope.config.listen import ListenSpec, parse_listen

Word = TypeVar("Word", bound=str)

# Seconds. The date at which iptables ends a grant has to be before 2038-01-19.
LONGEST: Final = 366 * 86_400.0

_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
# Days, hours, minutes and seconds, each with its unit and in this order.
_PARTS: Final = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?(?:(\d+)ms)?", re.ASCII
)
_BARE: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
# How many seconds each group of `_PARTS` counts.
_UNITS: Final = (86400, 3600, 60, 1, 0.001)
_RATE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)([kKMG]?)", re.ASCII)
_MULTIPLES: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
# The name of a host and its port (RFC 1123 section 2.1), or an IPv6 address in brackets.
_URL: Final = re.compile(
    r"https://([^@/?#]*@)?([a-z0-9.-]+|\[[0-9a-f:.]+\])(:\d+)?([/?#][!-~]*)?",
    re.ASCII | re.IGNORECASE,
)
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
# The kernel allows more characters, but iptables takes a + at the end for a wildcard.
_DEVICE: Final = re.compile(r"[A-Za-z0-9_.@][A-Za-z0-9_.@-]{0,126}")


def name(value: str) -> str:
    """A name that tokens carry: printable characters, no blanks at the ends.

    It is compared as it is, so that what an environment file adds by accident would refuse every
    token.
    """
    if not value.isprintable():
        raise ValueError(f"{value!r} has unprintable characters (such as a line end): remove them")
    if not value.strip():
        raise ValueError(f"{value!r} is empty: give a name")
    if value != value.strip():
        raise ValueError(f"{value!r} begins or ends with a blank: remove it")
    return value


def boolean(value: str) -> bool:
    """`true`, `yes`, `1`, `false`, `no` or `0`, in any case."""
    try:
        return _BOOLEANS[value.strip().lower()]
    except KeyError:
        raise ValueError(f"{value!r} is neither true nor false") from None


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def read(value: str) -> int:
        digits = value.strip()
        readable = digits.isascii() and digits.isdigit() and len(digits) <= 10
        if not readable or not least <= int(digits) <= most:
            raise ValueError(f"{value[:40]!r} is not a whole number from {least} to {most}")
        return int(digits)

    return read


def choice(*known: Word) -> Callable[[str], Word]:
    """One of `known`."""

    def read(value: str) -> Word:
        for word in known:
            if value.strip() == word:
                return word
        raise ValueError(f"{value!r} is none of {', '.join(known)}")

    return read


def duration(value: str) -> float:
    """Seconds, not negative, at most a year."""
    seconds = parse_duration(value)
    if seconds > LONGEST:
        raise ValueError(f"{value!r} is longer than a year")
    return seconds


def positive_duration(value: str) -> float:
    """Seconds, more than 0, at most a year."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError(f"{value!r} is not longer than 0 seconds")
    return seconds


def rate(value: str) -> float:
    """Bits per second, with `k`, `M` or `G` for thousands, millions and billions."""
    match = _RATE.fullmatch(value.strip())
    if match is None or not float(match[1]):
        raise ValueError(f"{value[:40]!r} is not a rate such as 800M or 1.5G")
    return float(match[1]) * _MULTIPLES[match[2]]


def path(value: str) -> Path:
    """A path, made absolute, because twistd may change its directory before the file is read."""
    if not value or _CONTROL.search(value):
        raise ValueError(f"{value!r} is not a path, or has control characters (such as a line end)")
    return Path(value).absolute()


def path_or_none(value: str) -> Path | Literal["none"]:
    """A path as `path` reads it, or the word "none"."""
    return "none" if value.strip() == "none" else path(value)


def device(value: str) -> str:
    """A name that a network device can have, alternative ones included, which may be longer.

    Whether the device exists is not checked here.
    """
    name = value.strip()
    if not _DEVICE.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{value[:40]!r} is not the name of a network device")
    return name


def listener(value: str) -> ListenSpec:
    """`[HOST]:PORT` or a Twisted endpoint description."""
    return parse_listen(value.strip())


def https_url(value: str) -> str:
    """An https URL, in ASCII, without user name, password and fragment."""
    url = value.strip()
    try:
        parts = urlsplit(url)
        right = parts.scheme == "https" and _is_host(parts.hostname or "") and parts.port != 0
    except ValueError:
        right = False
    # The text is not repeated, because it may contain a password.
    if not right or not _URL.fullmatch(url):
        raise ValueError("that is not an https URL such as https://keys.example/jwks.json")
    if "@" in parts.netloc:
        raise ValueError("a user name or password in a URL ends up in logs; leave it out")
    if "#" in url:
        raise ValueError("a fragment (from # on) is not sent to any server; leave it out")
    return url


def host_name(value: str) -> str:
    """The name of a host, in ASCII and lower case, without a port."""
    name = value.strip().lower().removesuffix(".")
    if ":" in name or not name.isascii() or not _is_host(name):
        raise ValueError(f"{value[:80]!r} is not a host's name, such as door.example")
    return name


def _is_host(name: str) -> bool:
    labels = name.removesuffix(".").split(".")
    return ":" in name or (len(name) < 254 and all(map(_LABEL.fullmatch, labels)))


def parse_duration(value: str) -> float:
    """Seconds, of any length, from `90`, `90s`, `1m30s`, `2h`, `1d`; raise `ValueError`."""
    written = value.strip().lower()
    if len(written) <= 20:
        if _BARE.fullmatch(written):
            return float(written)
        match = _PARTS.fullmatch(written)
        if match is not None and written:
            return sum(
                float(part) * unit
                for part, unit in zip(match.groups(), _UNITS, strict=True) if part
            )
    raise ValueError(f"{written[:40]!r} is not a duration such as 90, 90s, 1m30s, 2h or 500ms")
