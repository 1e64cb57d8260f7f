"""Tables for a terminal, of values that may come from anybody. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from envelope.text import printable

_GAP: Final = "  "
# Columns of the terminal that a text keeps when it is cut.
_LEAST: Final = 6


def width_of(text: str) -> int:
    """The columns that a terminal shows printable `text` in (Unicode Annex 11)."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )


def cut(text: str, width: int) -> str:
    """`text`, or as much of it as fits before an ellipsis."""
    if width_of(text) <= width:
        return text
    kept = ""
    for each in text:
        if width_of(kept + each) > width - 1:
            break
        kept += each
    return f"{kept}…"[:max(0, width)]


def table(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None,
    right: Sequence[int] = (), kept: int = 1,
) -> str:
    """Lines with the cells one below the other, none wider than `width` if that is given.

    The columns with the numbers in `right` hold numbers, which are aligned and never cut. Where the
    table is too wide, texts are cut, from the last column on, then whole columns are left out, but
    for the first `kept`.
    """
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        widths = _fitting(widths, width, right, kept)
    lines = []
    for row in cells:
        shown = [
            _padded(cut(cell, wide), wide, number in right)
            for number, (cell, wide) in enumerate(zip(row, widths, strict=False))
        ]
        line = _GAP.join(shown).rstrip()
        lines.append(line if width is None else cut(line, width))
    return "\n".join(lines)


def _fitting(widths: list[int], most: int, right: Sequence[int], kept: int) -> list[int]:
    """The widths of the columns that are shown."""
    fitting = list(widths)
    for number in reversed(range(kept, len(widths))):
        excess = sum(fitting) + len(_GAP) * (len(fitting) - 1) - most
        if excess > 0 and number not in right:
            fitting[number] = max(min(_LEAST, fitting[number]), fitting[number] - excess)
    while len(fitting) > kept and sum(fitting) + len(_GAP) * (len(fitting) - 1) > most:
        fitting.pop()
    # What a column that is left out would have taken belongs to the others.
    room = most - sum(fitting) - len(_GAP) * (len(fitting) - 1)
    for number, wide in enumerate(fitting):
        more = max(0, min(room, widths[number] - wide))
        fitting[number] += more
        room -= more
    return fitting


def _padded(text: str, wide: int, right: bool) -> str:
    blanks = " " * (wide - width_of(text))
    return blanks + text if right else text + blanks


def lasting(seconds: float) -> str:
    """A span of time in its two largest units, such as "1h05m"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def amount(bytes_: int | None) -> str:
    """A number of bytes in the largest unit of which there is at least one; "-" for None."""
    if bytes_ is None:
        return "-"
    value, unit = float(bytes_), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
