"""`envelope check`: try every precondition of a start, and undo it."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from envelope.config import Config
from envelope.preflight.findings import Finding, Level
from envelope.text import printable

FLAGS: Final = {"json": "print a list of objects instead of lines"}
USAGE: Final = """\
Usage: envelope check [service options] [--json]

Tries every precondition of a start with these options, and undoes it. Prints a line for each: ok,
warn or FAIL, what was found, and what to do about it. With --json it prints a list of objects
{"level", "what", "do"}. Exits with 0 (warnings included) or 1.
"""


def main(argv: list[str]) -> int:
    """Print what was found; the exit status is 1 if something fails, or for wrong options."""
    from envelope.config.options import ServiceOptions, parse

    if "--help" in argv:
        print(f"{USAGE}{ServiceOptions().getUsage()}", end="")
        return 0
    as_json = "--json" in argv
    argv = [word for word in argv if word != "--json"]
    try:
        config = parse(argv, os.environ)
    except UsageError as error:
        print(f"envelope check: {error}", file=sys.stderr)
        return 1
    found = _examine(config, argv, tell=not as_json)
    if as_json:
        shown = [{"level": each.level, "what": each.what, "do": each.do} for each in found]
        print(json.dumps(shown, indent=2))
    return int(any(each.level == Level.FAIL for each in found))


def _examine(config: Config, argv: list[str], tell: bool) -> list[Finding]:
    from twisted.internet import reactor

    from envelope.preflight.examination import examine

    untyped: Any = reactor
    found: list[Finding] = []
    ended: list[Failure | None] = []

    async def collect() -> None:
        async for each in examine(untyped, config, argv, os.environ):
            found.append(each)
            if tell:
                print(printable(f"{each.level:4}  {each}"), flush=True)

    def end(result: Failure | None) -> None:
        ended.append(result)
        untyped.stop()

    untyped.callWhenRunning(lambda: Deferred.fromCoroutine(collect()).addBoth(end))
    untyped.run()
    if not ended:
        # Ctrl-C. The trial ends with this process.
        raise KeyboardInterrupt
    if ended[0] is not None:
        ended[0].raiseException()
    return found
