"""Lines for the operator on standard error, which must not hold the process up."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Final

from envelope.runtime.journal import ERROR, is_journal

# Seconds. A pipe that nobody empties, or a terminal at Ctrl-S, blocks a write for good.
_WAIT: Final = 1.0


def tell(message: str) -> None:
    """Write one line, or give up after a second; what is no text becomes a ?."""
    priority = ERROR if is_journal(os.environ, 2) else ""

    def write() -> None:
        with suppress(OSError):
            os.write(2, f"{priority}envelope: {message}\n".encode("utf-8", "replace"))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(_WAIT)
