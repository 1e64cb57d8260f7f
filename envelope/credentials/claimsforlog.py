"""Which claims of a token may be logged and shown as they are. Pure.

A token is signed, but what its claims say may come from the client: line ends, escape sequences,
marks that turn the direction of writing, 8 kB. What does not fit is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

# Characters.
LONGEST: Final = 64
NO_CLAIMS: Final[Mapping[str, str | int | float]] = MappingProxyType({})


def text_for_log(text: str | None) -> str | None:
    """The text if it has at most `LONGEST` characters and all are printable, else None."""
    # `isprintable` is false for controls, direction marks and half surrogate pairs (categories Cc,
    # Cf, Cs), unassigned characters, line separators, and every blank but the ASCII one.
    return text if text is not None and len(text) <= LONGEST and text.isprintable() else None


def claims_for_log(
    payload: Mapping[str, Any], names: Collection[str]
) -> Mapping[str, str | int | float]:
    """The claims of these names that are numbers, or texts that fit."""
    if not names:
        return NO_CLAIMS
    found: dict[str, str | int | float] = {}
    for name in names:
        value = payload.get(name)
        if isinstance(value, str):
            if text_for_log(value) is not None:
                found[name] = value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found
