"""A strict JSON parser after RFC 8259's grammar; it shares no code with the service."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DIGITS, _HEX = frozenset("0123456789"), frozenset("0123456789abcdefABCDEF")


# The most letters of a number; a limit of this service, not of RFC 8259.
LONGEST_NUMBER = 20
# From here on the nearest float is infinity (IEEE 754 section 4.3.1).
_BEYOND_FLOATS = Fraction(2) ** 1024 - Fraction(2) ** 970


class Unreadable(Exception):
    """The text is not valid for a strict parser."""


def read_object(raw: bytes, deepest: int) -> dict[str, Any]:
    """The object in `raw`: unique names, at most `deepest` levels, numbers as floats.

    Raises `Unreadable`.
    """
    try:
        text = raw.decode("utf-8", "strict")
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    reader = _Reader(text, deepest)
    reader.blanks()
    value = reader.value(0)
    reader.blanks()
    if reader.at != len(text) or not isinstance(value, dict):
        raise Unreadable("not one object")
    return value


class _Reader:
    def __init__(self, text: str, deepest: int) -> None:
        self.text, self.at, self.deepest = text, 0, deepest

    def next(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> None:
        if not self.text.startswith(wanted, self.at):
            raise Unreadable(wanted)
        self.at += len(wanted)

    def blanks(self) -> None:
        while self.next() and self.next() in " \t\n\r":
            self.at += 1

    def value(self, depth: int) -> Any:
        match self.next():
            case "{" | "[" if depth == self.deepest:
                raise Unreadable("too deep")
            case "{":
                return self.object(depth + 1)
            case "[":
                return self.list(depth + 1)
            case '"':
                return self.string()
            case "t" | "f" | "n" as first:
                word, value = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}[
                    first]
                self.take(word)
                return value
        return self.number()

    def object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.take("{")
        self.blanks()
        while self.next() != "}":
            if found:
                self.take(",")
                self.blanks()
            name = self.string()
            if name in found:
                raise Unreadable("twice")
            self.blanks()
            self.take(":")
            self.blanks()
            found[name] = self.value(depth)
            self.blanks()
        self.take("}")
        return found

    def list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self.take("[")
        self.blanks()
        while self.next() != "]":
            if found:
                self.take(",")
                self.blanks()
            found.append(self.value(depth))
            self.blanks()
        self.take("]")
        return found

    def string(self) -> str:
        self.take('"')
        units: list[str] = []
        while (letter := self.next()) != '"':
            if not letter or letter < " ":
                raise Unreadable("a text without end")
            self.at += 1
            units.append(self.escape() if letter == "\\" else letter)
        self.at += 1
        # A pair of escaped surrogates is one character.
        return "".join(units).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def escape(self) -> str:
        letter = self.next()
        self.at += 1
        if letter == "u":
            digits = self.text[self.at : self.at + 4]
            if len(digits) < 4 or not _HEX.issuperset(digits):
                raise Unreadable("an escape")
            self.at += 4
            return chr(int(digits, 16))
        if letter not in _ESCAPES:
            raise Unreadable("an escape")
        return _ESCAPES[letter]

    def digits(self) -> str:
        start = self.at
        while self.next() in _DIGITS:
            self.at += 1
        if start == self.at:
            raise Unreadable("a number")
        return self.text[start : self.at]

    def number(self) -> float:
        start = self.at
        if self.next() == "-":
            self.at += 1
        whole = self.digits()
        if whole != "0" and whole.startswith("0"):
            raise Unreadable("a leading zero")
        fraction = self.next() == "."
        if fraction:
            self.at += 1
            self.digits()
        mantissa, power = self.text[start : self.at], 0
        if exponent := self.next() in ("e", "E"):
            self.at += 1
            sign = self.next() if self.next() in ("+", "-") else ""
            self.at += len(sign)
            # The other digits, at most 8 kB, cannot outweigh an exponent beyond this.
            size = min(int(self.digits().lstrip("0")[:9] or 0), 100_000)
            power = -size if sign == "-" else size
        if not fraction and not exponent and self.at - start > LONGEST_NUMBER:
            raise Unreadable("a long number")
        value = Fraction(mantissa) * Fraction(10) ** power
        if abs(value) >= _BEYOND_FLOATS:
            raise Unreadable("beyond any float")
        return float(value)
