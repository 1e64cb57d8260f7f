"""Waits for what nothing tells of: the kernel's rules and tables, /proc, another program's inside.

Whatever tells of itself (a line, an event, the end of a process) is awaited instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 60.0
# Seconds between two looks. A look is often a process of its own, which takes as long.
PAUSE: Final = 0.02


def wait_until(
    condition: Callable[[], object], what: Callable[[], object] | str, patience: float = PATIENCE
) -> None:
    """Wait until `condition` holds; an `AssertionError` with `what` after `patience` seconds."""
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit, what if isinstance(what, str) else what()
        time.sleep(PAUSE)
