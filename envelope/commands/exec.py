"""`envelope exec`: open an envelope, and run a command while it is open."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from typing import Any, Final

from twisted.python import usage

from envelope.commands.execution import CANNOT_RUN, NOT_FOUND, Choices, Execution, say
from envelope.commands.values import PROGRAM, words
from envelope.config.values import parse_duration

_SERVICE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
# Go's durations, with its units in seconds (https://pkg.go.dev/time#ParseDuration).
_GO_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_GO_PART: Final = re.compile(r"(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})(ns|us|µs|ms|s|m|h)", re.ASCII)
_LONGEST: Final = 366 * 86_400.0


class Options(usage.Options):
    """The command line."""

    synopsis = "[options] [--] [CMD...]"
    longdesc = (
        "Opens an envelope: at --url, or at the first machine of Locate's that lets us in. Then "
        "runs CMD with SERVICE_URL, SERVICE_HOSTNAME, SERVICE_ADDRESS (the address to measure) and "
        "CLIENT_ADDRESS in its environment, and closes the envelope when CMD ends. When the "
        "envelope ends first, CMD gets SIGTERM, and SIGKILL 5 s later. Without CMD it holds the "
        "envelope, and tells systemd when it is open. Exits with CMD's status, 128+n if signal n "
        "ended CMD, 124 if the envelope or --timeout ended it, 125 if no envelope could be "
        "opened, 126 or 127 if CMD cannot be run, 130 after Ctrl-C without CMD. Options may begin "
        "with one dash. No proxy is used."
    )
    takes: Final = {"family": words("4", "6", "both")}
    arguments: Final = PROGRAM
    optParameters = [  # noqa: RUF012
        ["url", None, None, "ws:// or wss:// URL with its token, as envelope sign --url prints it"],
        ["locate-url", None, None, "URL of Locate, without the service [default: M-Lab's]"],
        ["service", None, "wehe/replay", "NAME/TYPE to ask Locate for"],
        ["timeout", None, "60s", "how long all may take, from now: 90, 90s, 1m30s, 2h"],
        ["envelope-key", None, None,
         "key of the URL in Locate's answer [default: the one with the path of an envelope]"],
        ["family", None, None,
         "4, 6, or both: one envelope over each, as one visitor [default: what connects first]"],
    ]
    optFlags = [  # noqa: RUF012
        ["partial", None, "with --family=both: go on with one if the other cannot be had; without "
         "this, 125"],
        ["insecure", None, "do not verify certificates"],
    ]
    # As the reference calls it.
    _other_names: Final = {"env-key": "envelope-key"}

    def __init__(self) -> None:
        usage.Options.__init__(self)  # type: ignore[no-untyped-call, unused-ignore]
        self.command: list[str] = []

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line; options with one dash are the reference's spelling."""
        with_value = {each[0] for each in self.optParameters}
        known = {*with_value, *(each[0] for each in self.optFlags), "help", "version"}
        rest = list(options or ())
        words: list[str] = []
        while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
            word = rest.pop(0)
            name, equals, value = word.lstrip("-").partition("=")
            name = self._other_names.get(name, name)
            if name not in known:
                raise usage.UsageError(f"there is no option --{name}")
            words.append(f"--{name}{equals}{value}")
            if name in with_value and not equals:
                if not rest:
                    raise usage.UsageError(f"--{name} needs a value")
                words[-1] += f"={rest.pop(0)}"
        if rest and rest[0] == "--":
            rest.pop(0)
        usage.Options.parseOptions(self, [*words, "--", *rest])

    def parseArgs(self, *command: str) -> None:
        """Keep the command."""
        self.command = list(command)

    def postOptions(self) -> None:
        """Refuse options that are malformed or exclude each other."""
        try:
            self.seconds = duration(self["timeout"])
        except ValueError as error:
            raise usage.UsageError(f"--timeout: {error}") from None
        if self["family"] not in (None, "4", "6", "both"):
            raise usage.UsageError("--family takes 4, 6 or both")
        if self["partial"] and self["family"] != "both":
            raise usage.UsageError("--partial needs --family=both")
        if self["url"] is not None and self["locate-url"] is not None:
            raise usage.UsageError("--url and --locate-url exclude each other")
        if not _SERVICE.fullmatch(self["service"]):
            raise usage.UsageError("--service takes NAME/TYPE, such as wehe/replay")
        if self.command and not self.command[0]:
            raise usage.UsageError("the command's name is empty")

    def choices(self) -> Choices:
        """What was chosen."""
        return Choices(
            self.command, self["url"], self["locate-url"], self["service"], self.seconds,
            self["envelope-key"] or None, self["family"] or "any", bool(self["partial"]),
            bool(self["insecure"]),
        )


def duration(text: str) -> float:
    """Seconds from our notation or Go's, more than 0; raise `ValueError`."""
    parts = _GO_PART.findall(text)
    if parts and "".join(map("".join, parts)) == text:
        seconds = sum(float(number) * _GO_UNITS[unit] for number, unit in parts)
    else:
        seconds = parse_duration(text)
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"{text!r} is not between 0 and a year")
    return seconds


def run(options: Options) -> int:
    """Run the command; see `Options` for the exit status."""
    if options.command and shutil.which(options.command[0]) is None:
        exists = os.path.exists(options.command[0])
        say(f"{options.command[0]}: {'cannot be executed' if exists else 'command not found'}")
        return CANNOT_RUN if exists else NOT_FOUND
    # Imported here because it takes longer than reading the command line.
    from envelope.commands.running import Signals

    signals = Signals()
    from twisted.internet import reactor as installed

    from envelope.runtime.lookup import abandon_lookups_at_the_end
    from envelope.runtime.reactor import use_boot_clock

    reactor: Any = installed
    use_boot_clock(reactor)
    abandon_lookups_at_the_end(reactor)
    from twisted.internet.defer import Deferred

    execution = Execution(reactor, options.choices(), signals)
    results: list[Any] = []

    def finish(result: Any) -> None:
        results.append(result)
        reactor.stop()

    def start() -> None:
        Deferred.fromCoroutine(execution.run()).addBoth(finish)

    reactor.callWhenRunning(start)
    reactor.run(installSignalHandlers=False)
    if not isinstance(results[0], int):
        results[0].raiseException()
    return int(results[0])
