"""Text from files, tools and the network, made safe to print. Pure."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, with a `?` for each character that cannot be printed.

    File names and error messages can hold line ends, and escape sequences that a terminal obeys.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)
