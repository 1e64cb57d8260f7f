"""The demo's output: numbered steps, results, and what commands print. ASCII only."""

from __future__ import annotations

import os
from typing import TextIO

# To the first column, and erase the line (ECMA-48: CR, and EL).
_LINE_START = "\r\033[K"
_BOLD, _GREEN, _RED, _DIM = "1", "32", "31", "2"


class StepFailed(Exception):
    """A step of the demo did not have the expected result; the text is one line."""


class Narration:
    """Writes to `out`, in colour if it is a terminal and NO_COLOR is not set."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = out.isatty() and not os.environ.get("NO_COLOR")
        self._drawn = False
        self._step = 0

    def step(self, title: str) -> None:
        """Begin the next step."""
        self._step += 1
        self._line("\n" + self._paint(_BOLD, f"{self._step}. {title}"))

    def say(self, text: str) -> None:
        """Write one line."""
        self._line(f"   {text}")

    def draw(self, text: str) -> None:
        """Show a line that the next one replaces, if `out` is a terminal."""
        if self._terminal:
            # Before, since Ctrl-C may come while it prints.
            self._drawn = True
            print(f"{_LINE_START}   {text}", end="", file=self._out, flush=True)

    def keep(self, text: str) -> None:
        """Write one line instead of the one that was drawn."""
        if self._drawn:
            print(_LINE_START, end="", file=self._out)
            self._drawn = False
        self.say(text)

    def finish(self) -> None:
        """Begin a new line after one that was drawn."""
        if self._drawn:
            print(file=self._out, flush=True)
            self._drawn = False

    def quote(self, command: str, text: str) -> None:
        """Show a command and its output."""
        self._line(self._paint(_DIM, f"   $ {command}"))
        for line in text.splitlines():
            self._line(self._paint(_DIM, f"     {line}"))

    def check(self, expected: bool, result: str) -> None:
        """Show a result; raise `StepFailed` when it is not the expected one."""
        mark = self._paint(_GREEN, "ok") if expected else self._paint(_RED, "NOT AS EXPECTED")
        self._line(f"   {mark}  {result}")
        if not expected:
            raise StepFailed(result)

    def _paint(self, style: str, text: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour else text

    def _line(self, text: str) -> None:
        self.finish()
        # Flushed, so that the reader of a pipe sees each step when it happens.
        print(text, file=self._out, flush=True)
