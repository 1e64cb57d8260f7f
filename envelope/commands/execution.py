"""What `envelope exec` does: opens an envelope, and runs a command or holds it until the end."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from envelope import __version__
from envelope.text import printable

if TYPE_CHECKING:
    from envelope.client import Ended, Held
    from envelope.commands.running import Command, Signals

# Exit statuses; but for the first, as timeout(1) and env(1) have them.
WRONG_USAGE: Final = 2
ENDED: Final = 124
NOT_OPENED: Final = 125
CANNOT_RUN: Final = 126
NOT_FOUND: Final = 127

# Signals that do not end this process while it has no command.
_NOT_ENDING: Final = frozenset({
    signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT,
})
_ENDS: Final = {
    "closed": "the server closed the envelope", "deadline": "the envelope's deadline has passed",
    "revoked": "an operator revoked the envelope", "idle": "the envelope ended because it was idle",
    "stopping": "the envelope ended because its server is stopping",
    "data": "the server closed the envelope because it received data",
    "lost": "the connection to the envelope was lost",
}


@dataclass(frozen=True, slots=True)
class Choices:
    """The options of `envelope exec`; `seconds` is how long all may take."""

    command: list[str]
    url: str | None
    locate_url: str | None
    service: str
    seconds: float
    key: str | None
    family: str
    partial: bool
    insecure: bool


def say(text: str) -> None:
    """Write one line to standard error, if that is possible."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(printable(f"envelope exec: {text}"), file=sys.stderr, flush=True)


class Execution:
    """Opens the envelope, and runs the command or holds until the end."""

    def __init__(self, reactor: Any, choices: Choices, signals: Signals) -> None:
        self._reactor = reactor
        self._choices = choices
        self._signals = signals
        self._end = reactor.seconds() + choices.seconds
        self._command: Command | None = None
        self._held = False
        self._cut = False
        # What is to be said besides when the time is up before an envelope is open.
        self._so_far: list[str] = []
        self._status: int | None = None
        self._working: Any = None

    async def run(self) -> int:
        """Do all of it; the exit status."""
        from twisted.internet.defer import CancelledError, Deferred

        self._signals.tell(self._reactor, self._signal)
        if self._choices.insecure:
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
            return WRONG_USAGE
        return await self._first_of(urls)

    async def _urls(self) -> list[str]:
        from envelope.client.locate import NEAREST, locate

        choices = self._choices
        if choices.url is not None:
            return [choices.url]
        self._so_far = ["Locate has not answered"]
        urls = await locate(
            self._reactor, choices.locate_url or NEAREST, choices.service, choices.key,
            patience=self._left, insecure=choices.insecure, user_agent=f"envelope/{__version__}",
        )
        self._so_far = []
        return urls

    async def _first_of(self, urls: list[str]) -> int:
        """Hold the first envelope that can be had."""
        from envelope.client import BadURL, Family, Refused, opened

        choices, refusals = self._choices, self._so_far
        for url in urls:
            try:
                opening = opened(
                    self._reactor, url, family=Family(choices.family),
                    partial=choices.partial, insecure=choices.insecure,
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
                if choices.url is not None:
                    say(f"--url: {error}")
                    return WRONG_USAGE
                refusals.append(f"the URL of the envelope: {error}")
            except Refused as refused:
                wait = refused.retry_after
                refusals.append(f"{refused}{'' if wait is None else f' (try again in {wait} s)'}")
        say(f"no envelope: {'; '.join(refusals)}")
        return NOT_OPENED

    async def _while_open(self, held: Held, url: str) -> int:
        if not self._choices.command:
            return await self._hold(held)
        from urllib.parse import urlsplit

        from envelope.commands.running import Command

        env = {
            **os.environ, "SERVICE_URL": url, "SERVICE_HOSTNAME": urlsplit(url).hostname or "",
            "SERVICE_ADDRESS": " ".join(map(str, held.addresses)),
            "CLIENT_ADDRESS": " ".join(map(str, held.client_addresses)),
        }
        try:
            self._command = Command(
                self._reactor, self._choices.command, env, self._signals.before
            )
        except OSError as error:
            say(f"{self._choices.command[0]}: {error.strerror}")
            return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        watch = held.ended.addCallbacks(self._over, lambda _: None)
        status = await self._command.ended
        watch.cancel()
        return ENDED if self._cut else status

    async def _hold(self, held: Held) -> int:
        from envelope.runtime.servicemanager import ServiceManager

        manager = ServiceManager(self._reactor, os.environ, lambda: "the envelope is open")
        manager.ready()
        try:
            self._over(await held.ended)
        finally:
            manager.close()
        return ENDED

    def _over(self, end: Ended) -> None:
        self._cut_off(_ENDS[end])

    def _cut_off(self, why: str) -> None:
        """End the command unless it has ended, and say why; the first reason counts."""
        if self._cut or (self._command is not None and self._command.ended.called):
            return
        self._cut = True
        say(why)
        if self._command is not None:
            self._command.terminate()

    def _time_is_up(self) -> None:
        why = f"--timeout ({self._choices.seconds:g} s) has passed"
        if self._command is not None:
            self._cut_off(why)
        else:
            say(why if self._held else "; ".join([why, *self._so_far]))
            self._status = ENDED if self._held else NOT_OPENED
            self._working.cancel()

    def _signal(self, number: int, command_has_it: bool) -> None:
        if self._command is not None:
            if not command_has_it:
                self._command.send(number)
        elif number not in _NOT_ENDING and self._status is None:
            self._status = 128 + number
            self._working.cancel()
        if number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)
