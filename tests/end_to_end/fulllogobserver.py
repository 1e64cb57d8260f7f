"""A log that keeps nothing back: `twistd --logger=tests.end_to_end.fulllogobserver.observer`.

Each event as a line of text and, with every field that it carries, as JSON and as Python shows it.
"""

import sys
from collections.abc import Callable

from twisted.logger import LogEvent, eventAsJSON, eventAsText

# Not what twistd puts in its place, which goes to the log, and so would come back here.
_out = sys.__stdout__


def observer() -> Callable[[LogEvent], None]:
    """What twistd calls to get its observer."""

    def say(event: LogEvent) -> None:
        print(eventAsText(event), eventAsJSON(event), repr(event), sep="\n", file=_out, flush=True)

    return say
