"""Standard output whose reader may be gone, as in `envelope rules | head -1`."""

from __future__ import annotations

import os
import sys


def flush_or_discard() -> None:
    """Write what is buffered, or discard it if it cannot be written.

    The interpreter would otherwise try again when it exits, and print an error.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
