"""A log with every field: `twistd --logger=tests.end_to_end.fulllogobserver.observer`.

Each event is printed three times: as text, as JSON with all fields, and as its `repr`.
"""

import sys
from collections.abc import Callable

from twisted.logger import LogEvent, eventAsJSON, eventAsText

# The real standard output: twistd replaces `sys.stdout` by the log, which would lead back here.
_out = sys.__stdout__


def observer() -> Callable[[LogEvent], None]:
    """Called by twistd; returns the observer."""

    def say(event: LogEvent) -> None:
        print(eventAsText(event), eventAsJSON(event), repr(event), sep="\n", file=_out, flush=True)

    return say
