"""The demo's chart of a measurement that runs: a bar of throughput for each half second."""

from __future__ import annotations

from typing import Final

from envelope.lab.narration import Narration

# Seconds that a row stands for.
ROW: Final = 0.5
_WIDTH: Final = 30
# How much wider than the first bar the widest one is.
_ROOM: Final = 1.2
HEADING: Final = f"{'':9}{'throughput':{_WIDTH + 16}}let in by the rule"


class Chart:
    """Draws the row of this half second anew with each `add`, and keeps it at its end."""

    def __init__(self, out: Narration) -> None:
        self._out = out
        self._since = self._sent = 0.0
        self._widest = 0.0
        out.say(HEADING)

    def ends_row(self, seconds: float) -> bool:
        """Whether a row ends at these seconds since the start."""
        return seconds - self._since >= ROW

    def add(self, seconds: float, sent: int, packets: int, size: int) -> None:
        """Show what was sent until these seconds, and what the rule has counted, in bytes."""
        rate = (sent - self._sent) * 8 / (seconds - self._since)
        row = self._row(seconds, rate, packets, size)
        if not self.ends_row(seconds):
            self._out.draw(row)
            return
        self._out.keep(row)
        self._widest = self._widest or rate * _ROOM
        self._since, self._sent = seconds, sent

    def _row(self, seconds: float, rate: float, packets: int, size: int) -> str:
        share = min(rate / (self._widest or rate * _ROOM or 1), 1)
        bar = "#" * round(share * _WIDTH)
        return (f"{seconds:5.1f} s  {bar:{_WIDTH}}  {rate / 1e9:5.1f} Gbit/s"
                f"{packets:9,} packets  {size / 2**30:5.2f} GiB")
