"""Keys from a URL, kept fresh: fetched at the start, by the answer's own dates, and when wanted.

What fails keeps the last good keys, however old they are: a server of keys that is down must not
take down every service that ever asked it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from envelope.credentials import freshness
from envelope.credentials.fetch import IFetcher
from envelope.credentials.httpreply import FetchFailed, FetchOutcome, Reply
from envelope.credentials.keys import Key, KeyFileError
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.publishedkeys import KeySet, read_set

_log = Logger(namespace="envelope.remotekeys")

# Seconds between two fetches that tokens with unknown kids can bring about: anybody can send such.
LEAST_BETWEEN: Final = 60.0
# Lines in the log about keys of one set that were passed over.
MOST_LINES: Final = 10


class RemoteKeys:
    """The keys at `origin`, as `fetcher` brings them; `changed` is called when there are others.

    `clock` counts the pauses, `wall` tells seconds since the epoch.
    """

    def __init__(
        self,
        fetcher: IFetcher,
        origin: str,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: CredentialMetrics,
        changed: Callable[[], None],
    ) -> None:
        self.keys: tuple[Key, ...] = ()
        self._fetcher = fetcher
        self._origin = origin
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._changed = changed
        self._content = b""
        self._found = KeySet(())
        self._skipped: tuple[str, ...] = ()
        self._trouble = "they have not been fetched yet"
        self._failures = 0
        self._began = 0.0
        self._timer: IDelayedCall | None = None
        self._fetching: Deferred[Any] | None = None
        self._first: Deferred[None] | None = None
        self._running = False
        self._again = False

    def start(self) -> Deferred[None]:
        """Fetch from now on; fires, and never fails, when the first fetch has ended."""
        _log.info("fetching the keys of {origin}", origin=self._origin)
        self._running = True
        first = self._first = Deferred()
        self._fetch()
        return first

    def stop(self) -> None:
        """Fetch no more."""
        self._running = False
        self._disarm()
        if self._fetching is not None:
            self._fetching.cancel()

    def refetch(self) -> None:
        """Fetch at once, or as soon as the fetch under way has ended: that one may be outdated."""
        if self._fetching is not None:
            self._again = True
        elif self._running:
            self._fetch()

    def unknown_kid(self) -> None:
        """A token names a key that is not there: fetch soon, but not too often."""
        if self._timer is not None:
            soonest = max(0.0, self._began + LEAST_BETWEEN - self._clock.seconds())
            if self._timer.getTime() > self._clock.seconds() + soonest:
                self._timer.reset(soonest)

    def trouble(self) -> list[str]:
        """Why the keys are not what they should be, in at most one line."""
        return [f"the keys of {self._origin}: {self._trouble}"] if self._trouble else []

    def _fetch(self) -> None:
        self._disarm()
        self._began = self._clock.seconds()
        fetching: Deferred[Any] = self._fetcher.fetch()
        self._fetching = fetching
        fetching.addCallback(self._fetched).addErrback(self._failed).addCallback(self._settle)

    def _fetched(self, reply: Reply) -> float:
        try:
            # Checking keys takes time; most answers are the last one again.
            if reply.content != self._content:
                self._found = read_set(reply.content, self._origin)
                self._content = reply.content
        except KeyFileError as error:
            raise FetchFailed(FetchOutcome.MALFORMED, error.reason) from None
        self._trouble, self._failures = "", 0
        self._metrics.keys_fetched(len(self._found.keys), self._wall())
        self._take(self._found)
        return freshness.lifetime(reply.headers, self._wall())

    def _take(self, found: KeySet) -> None:
        if found.skipped != self._skipped:
            self._skipped = found.skipped
            for line in found.skipped[:MOST_LINES]:
                _log.warn("passed over in {origin}: {line}", origin=self._origin, line=line)
            if len(found.skipped) > MOST_LINES:
                _log.warn("passed over {more} more", more=len(found.skipped) - MOST_LINES)
        before, self.keys = self.keys, found.keys
        if [_identity(key) for key in before] != [_identity(key) for key in self.keys]:
            kids = ", ".join(key.kid for key in self.keys)
            _log.info("the keys of {origin} are now: {kids}", origin=self._origin, kids=kids)
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
        wait = freshness.pause(self._failures)
        _log.warn(
            "could not fetch the keys of {origin}: {trouble}; {kept} kept, again in {wait:.0f} s",
            origin=self._origin, trouble=self._trouble, kept=len(self.keys), wait=wait,
        )
        return wait

    def _settle(self, wait: float) -> None:
        self._fetching = None
        if self._running:
            self._timer = self._clock.callLater(0.0 if self._again else wait, self._fetch)
        self._again = False
        first, self._first = self._first, None
        if first is not None:
            first.callback(None)

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _identity(key: Key) -> tuple[str, str]:
    return key.kid, key.jwk.thumbprint()
