"""The wall clock of the state machine's service; the kernel's own clock is never set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ModelClock:
    """A clock that is `ahead` seconds ahead of the kernel's, or behind it.

    `moved` and `behind` tell of the time since the last full comparison: whether the clock was set,
    and how far behind it was at most. So much before its deadline the kernel may end a grant,
    because the tool may have refused to write the end anew.
    """

    ahead: int = 0
    moved: bool = False
    behind: int = 0

    def set(self, to: int) -> None:
        """Set the clock `to` seconds ahead."""
        self.moved |= to != self.ahead
        self.ahead = to
        self.behind = max(self.behind, -to)

    def compared(self) -> None:
        """All ends were found to be as the clock is now."""
        self.moved = False
        self.behind = max(0, -self.ahead)
