"""How the demo speaks: numbered steps, findings, and the kernel's own words; ASCII only."""

from __future__ import annotations

import os
from typing import TextIO

_BOLD, _GREEN, _RED, _DIM = "1", "32", "31", "2"


class StepFailed(Exception):
    """Something did not go as told."""


class Narration:
    """Writes to `out`, in colour if that is a terminal and nobody asked for none."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._colour = out.isatty() and not os.environ.get("NO_COLOR")
        self._step = 0

    def step(self, title: str) -> None:
        """Start the next step."""
        self._step += 1
        self._line("\n" + self._paint(_BOLD, f"{self._step}. {title}"))

    def say(self, text: str) -> None:
        """A plain remark."""
        self._line(f"   {text}")

    def quote(self, command: str, text: str) -> None:
        """What `command` printed."""
        self._line(self._paint(_DIM, f"   $ {command}"))
        for line in text.splitlines():
            self._line(self._paint(_DIM, f"     {line}"))

    def check(self, as_told: bool, finding: str) -> None:
        """Report a finding; the demo ends with the first that is not as told."""
        mark = self._paint(_GREEN, "ok") if as_told else self._paint(_RED, "NOT AS TOLD")
        self._line(f"   {mark}  {finding}")
        if not as_told:
            raise StepFailed(finding)

    def _paint(self, style: str, text: str) -> str:
        return f"\033[{style}m{text}\033[0m" if self._colour else text

    def _line(self, text: str) -> None:
        # Flushed, so that a pipe sees each step when it happens.
        print(text, file=self._out, flush=True)
