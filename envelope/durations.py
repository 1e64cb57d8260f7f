"""Durations as people write them: `90`, `90s`, `1m30s`, `2h`."""

from __future__ import annotations

import re
from typing import Final

_PARTS: Final = re.compile(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII
)
_BARE: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_UNITS: Final = (86400, 3600, 60, 1)


def parse_duration(text: str) -> float:
    """Seconds that `text` stands for; raise `ValueError` with one line when it stands for none."""
    text = text.strip().lower()
    if len(text) <= 20:
        if _BARE.fullmatch(text):
            return float(text)
        match = _PARTS.fullmatch(text)
        if match is not None and text:
            return sum(
                float(part) * unit
                for part, unit in zip(match.groups(), _UNITS, strict=True) if part
            )
    raise ValueError(f"{text[:40]!r} is not a duration such as 90, 90s, 1m30s or 2h")
