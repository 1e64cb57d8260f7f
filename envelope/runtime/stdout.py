"""Standard output whose reader may have had enough, as in `envelope rules | head -1`."""

from __future__ import annotations

import os
import sys


def settle_output() -> None:
    """Write what is left, or else drop it.

    What cannot be written the interpreter would try once more at its end, and complain aloud.
    """
    try:
        sys.stdout.flush()
    except OSError:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
