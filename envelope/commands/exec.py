"""`envelope exec`: open an envelope, and run a command while it is open."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.python import usage

from envelope import __version__
from envelope.config.values import parse_duration
from envelope.text import printable

if TYPE_CHECKING:
    from envelope.client import Ended, Held
    from envelope.commands.running import Command, Signals

ENDED, NOT_OPENED, CANNOT_RUN, NOT_FOUND = 124, 125, 126, 127
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

    reactor: Any = installed
    abandon_lookups_at_the_end(reactor)
    from twisted.internet.defer import Deferred

    execution = Execution(reactor, options, signals)
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


def say(text: str) -> None:
    """Write one line to standard error, if that is possible."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable(f"envelope exec: {text}"), file=sys.stderr, flush=True)


class Execution:
    """Opens the envelope, and runs the command or holds until the end."""

    def __init__(self, reactor: Any, options: Options, signals: Signals) -> None:
        self._reactor = reactor
        self._options = options
        self._signals = signals
        self._end = reactor.seconds() + options.seconds
        self._command: Command | None = None
        self._held = False
        self._cut = False
        self._status: int | None = None
        self._working: Any = None

    async def run(self) -> int:
        """Do all of it; the exit status."""
        from twisted.internet.defer import CancelledError, Deferred

        self._signals.tell(self._reactor, self._signal)
        if self._options["insecure"]:
            say("INSECURE: certificates are not verified; anyone on the way can read the token")
        self._working = Deferred.fromCoroutine(self._work())
        timer = self._reactor.callLater(self._left, self._time_is_up)
        try:
            return int(await self._working)
        except CancelledError:
            assert self._status is not None, "whoever cancels has set it"
            return self._status
        finally:
            if timer.active():
                timer.cancel()

    @property
    def _left(self) -> float:
        remaining: float = self._end - self._reactor.seconds()
        return max(remaining, 0.0)

    async def _work(self) -> int:
        from envelope.client import BadURL
        from envelope.client.locate import LocateFailed

        try:
            urls = await self._urls()
        except LocateFailed as error:
            say(str(error))
            return NOT_OPENED
        except BadURL as error:
            say(f"--locate-url: {error}")
            return NOT_OPENED
        return await self._first_of(urls)

    async def _urls(self) -> list[str]:
        from envelope.client.locate import NEAREST, locate

        options = self._options
        if options["url"] is not None:
            return [options["url"]]
        return await locate(
            self._reactor, options["locate-url"] or NEAREST, options["service"],
            options["envelope-key"] or None, patience=self._left,
            user_agent=f"envelope/{__version__}",
        )

    async def _first_of(self, urls: list[str]) -> int:
        """Hold the first envelope that can be had."""
        from envelope.client import BadURL, Family, Refused, opened

        options = self._options
        refusals: list[str] = []
        for url in urls:
            try:
                opening = opened(
                    self._reactor, url, family=Family(options["family"] or "any"),
                    partial=bool(options["partial"]), insecure=bool(options["insecure"]),
                    user_agent=f"envelope/{__version__}",
                )
                async with opening as held:
                    self._held = True
                    if refusals:
                        say(f"open, after {'; '.join(refusals)}")
                    if held.missing is not None:
                        say(f"open over one address family only: {held.missing}")
                    return await self._while_open(held, url)
            except BadURL as error:
                refusals.append(f"the URL of the envelope: {error}")
            except Refused as refused:
                wait = refused.retry_after
                refusals.append(f"{refused}{'' if wait is None else f' (try again in {wait} s)'}")
        say(f"no envelope: {'; '.join(refusals)}")
        return NOT_OPENED

    async def _while_open(self, held: Held, url: str) -> int:
        if not self._options.command:
            _notify(b"READY=1")
            self._over(await held.ended)
            return ENDED
        from urllib.parse import urlsplit

        from envelope.commands.running import Command

        env = {
            **os.environ, "SERVICE_URL": url, "SERVICE_HOSTNAME": urlsplit(url).hostname or "",
            "SERVICE_ADDRESS": " ".join(map(str, held.addresses)),
            "CLIENT_ADDRESS": " ".join(map(str, held.client_addresses)),
        }
        try:
            self._command = Command(
                self._reactor, self._options.command, env, self._signals.before
            )
        except OSError as error:
            say(f"{self._options.command[0]}: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        watch = held.ended.addCallbacks(self._over, lambda _: None)
        status = await self._command.ended
        watch.cancel()
        return ENDED if self._cut else status

    def _over(self, end: Ended) -> None:
        self._cut_off(_ENDS[end])

    def _cut_off(self, why: str) -> None:
        """End the command, and say why; the first reason counts."""
        if not self._cut:
            self._cut = True
            say(why)
            if self._command is not None:
                self._command.terminate()

    def _time_is_up(self) -> None:
        why = f"--timeout ({self._options['timeout']}) has passed"
        if self._command is not None:
            self._cut_off(why)
        else:
            say(why)
            self._status = ENDED if self._held else NOT_OPENED
            self._working.cancel()

    def _signal(self, number: int, command_has_it: bool) -> None:
        if self._command is not None:
            if not command_has_it:
                self._command.send(number)
        elif number in _ENDING and self._status is None:
            self._status = 128 + number
            self._working.cancel()
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)


_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_ENDS: Final = {
    "closed": "the server closed the envelope", "deadline": "the envelope's deadline has passed",
    "revoked": "an operator revoked the envelope", "idle": "the envelope ended because it was idle",
    "stopping": "the envelope ended because its server is stopping",
    "data": "the server closed the envelope because it received data",
    "lost": "the connection to the envelope was lost",
}


def _notify(state: bytes) -> None:
    """Tell a service manager; see sd_notify(3)."""
    place = os.environ.get("NOTIFY_SOCKET", "")
    if place.startswith(("/", "@")):
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state, f"\0{place[1:]}" if place.startswith("@") else place)
