"""When to move our jump back before others' rules: at once at first, then after pauses. Pure.

Another program may insist on the first place in INPUT as we do. Without pauses the two would move
their rules past each other at every look, for ever.
"""

from __future__ import annotations

from typing import Final

# Moves in a row that are made at once. Seconds of the pauses after them, each twice as long as the
# one before; and for how long our jump has to stay in its place until a row is over.
AT_ONCE: Final = 5
FIRST_PAUSE: Final = 30.0
LONGEST_PAUSE: Final = 300.0
QUIET: Final = 120.0


class Contest:
    """Counts moves in a row; all times are reactor seconds."""

    def __init__(self) -> None:
        self._moves = 0
        self._moved_at = 0.0
        # Since when looks have found our jump in its place; None while it is not.
        self._quiet_since: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether pauses are made."""
        return self._moves >= AT_ONCE

    def found(self, displaced: bool, now: float) -> bool:
        """Note what a look has found; whether our jump is to be moved now."""
        if displaced:
            self._quiet_since = None
            return now >= self._moved_at + self._pause
        if self._quiet_since is None:
            self._quiet_since = now
        if now - self._quiet_since >= max(QUIET, 2 * self._pause):
            self._moves = 0
        return False

    def moved(self, now: float) -> None:
        """Our jump was moved."""
        self._moves += 1
        self._moved_at = now

    @property
    def _pause(self) -> float:
        if not self.is_on:
            return 0.0
        # The exponent is limited, since a row may go on for months.
        return min(FIRST_PAUSE * 2.0 ** min(self._moves - AT_ONCE, 10), LONGEST_PAUSE)
