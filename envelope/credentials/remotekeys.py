"""Keys from `--verify-jwks-url`: fetched at the start, and again before the answer expires.

A failed fetch keeps the keys of the last good one, however old they are: when the server of the
keys is down, the services that use its keys go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.credentials import freshness
from envelope.credentials.fetch import Fetcher
from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply
from envelope.credentials.keys import Key, KeyFileError
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.publishedkeys import KeySet, read_set, summary
from envelope.runtime.timers import Timer

_log = Logger(namespace="envelope.remotekeys")


class RemoteKeys:
    """The keys that `fetcher` brings from `origin`; calls `changed` when they are other keys.

    `origin` is what the log calls the URL. `clock` (reactor seconds) runs the timers, `wall`
    returns seconds since the epoch. `chance` returns a random number from 0 to 1, by which fetches
    of many services are spread.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        origin: str,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: CredentialMetrics,
        changed: Callable[[], None],
        chance: Callable[[], float],
    ) -> None:
        self.keys: tuple[Key, ...] = ()
        self._fetcher = fetcher
        self._origin = origin
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._changed = changed
        self._chance = chance
        self._content = b""
        self._found = KeySet(())
        self._skipped: tuple[str, ...] = ()
        self._trouble = "they have not been fetched yet"
        self._failures = 0
        self._began = 0.0
        self._timer = Timer(clock)
        self._due_at = 0.0
        self._hurried = False
        self._fetching: Deferred[Any] | None = None
        self._first: Deferred[None] | None = None
        self._running = False
        self._again = False

    def start(self) -> Deferred[None]:
        """Fetch from now on; fires once the first fetch has ended, and never fails."""
        _log.info("fetching the keys of {origin}", origin=self._origin)
        self._running = True
        first = self._first = Deferred()
        self._fetch()
        return first

    def stop(self) -> None:
        """Stop fetching, and cancel the fetch under way."""
        self._running = False
        self._timer.stop()
        if self._fetching is not None:
            self._fetching.cancel()

    def refetch(self) -> None:
        """Fetch now, or after the fetch under way, which may bring the state from before."""
        if self._fetching is not None:
            self._again = True
        elif self._running:
            self._fetch()

    def unknown_kid(self) -> None:
        """Fetch soon, since a token names an unknown key; `freshness` limits how often."""
        # Once for each fetch: the earliest of many draws would be no spread any more.
        if self._timer.running and not self._hurried:
            self._hurried = True
            now = self._clock.seconds()
            soonest = now + freshness.unknown_kid_delay(now - self._began, self._chance())
            if self._due_at > soonest:
                self._fetch_at(soonest)

    def trouble(self) -> list[str]:
        """At most one line: why the keys are not those of a recent, successful fetch."""
        return [f"the keys of {self._origin}: {self._trouble}"] if self._trouble else []

    def _fetch_at(self, moment: float) -> None:
        self._due_at = moment
        # The clock may have passed the moment already, and a delay cannot be negative.
        self._timer.start(max(moment - self._clock.seconds(), 0.0), self._fetch)

    def _fetch(self) -> None:
        self._timer.stop()
        self._hurried = False
        self._began = self._clock.seconds()
        fetching: Deferred[Any] = self._fetcher.fetch()
        self._fetching = fetching
        fetching.addCallback(self._fetched).addErrback(self._failed).addCallback(self._settle)

    def _fetched(self, reply: Reply) -> float:
        try:
            # Checking keys takes time, and most answers are the same as the last.
            if reply.content != self._content:
                self._found = read_set(reply.content, self._origin)
                self._content = reply.content
        except KeyFileError as error:
            raise FetchFailed(FetchOutcome.MALFORMED, error.reason) from None
        self._trouble, self._failures = "", 0
        self._metrics.keys_fetched(len(self._found.keys), self._wall())
        self._take(self._found)
        lifetime = freshness.lifetime(reply.headers, self._wall())
        return freshness.refresh_after(lifetime, self._chance())

    def _take(self, found: KeySet) -> None:
        if found.skipped != self._skipped:
            self._skipped = found.skipped
            for line in summary(self._origin, found.skipped):
                _log.warn("{line}", line=line)
        before, self.keys = self.keys, found.keys
        if [key.identity for key in before] != [key.identity for key in self.keys]:
            kids = ", ".join(key.kid for key in self.keys)
            _log.info("the keys of {origin} are now: {kids}", event="keys",
                      origin=self._origin, kids=kids)
            self._changed()

    def _failed(self, failure: Failure) -> float:
        if not self._running:
            return 0.0
        if failure.check(FetchFailed) is None:
            _log.failure("a fetch broke", failure=failure)
            failure = Failure(
                FetchFailed(FetchOutcome.MALFORMED, "the fetch broke; the log says how")
            )
        self._failures += 1
        self._trouble = failure.getErrorMessage()
        self._metrics.fetch_failed(failure.value.outcome)  # type: ignore[union-attr]
        wait = freshness.retry_after(self._failures, self._chance())
        _log.warn(
            "could not fetch the keys of {origin}: {trouble}; {kept} kept, again in {wait:.0f} s",
            event="keys-failed", origin=self._origin, trouble=self._trouble, kept=len(self.keys),
            wait=wait,
        )
        return wait

    def _settle(self, wait: float) -> None:
        self._fetching = None
        if self._running:
            self._fetch_at(self._clock.seconds() + (0.0 if self._again else wait))
        self._again = False
        first, self._first = self._first, None
        if first is not None:
            first.callback(None)
