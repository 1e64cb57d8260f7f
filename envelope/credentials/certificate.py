"""The certificate in use, watched: its end is told at the start, at a reload, and while it nears.

An expired certificate does not make the service unready: which certificates it accepts is the
client's decision, and one that does not look at dates is served as before. `/readyz` names it as
a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.tls import ServerTLS, TLSFileError
from envelope.credentials.validity import shown

_log = Logger(namespace="envelope.certificate")


class WatchedCertificate:
    """Looks at the end of the certificate in `tls` when it is loaded, and at least once a day.

    `wall` tells seconds since the epoch; `clock` counts the days.
    """

    def __init__(
        self,
        tls: ServerTLS,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: CredentialMetrics,
    ) -> None:
        self.tls = tls
        self._clock = clock
        self._wall = wall
        self._metrics = metrics
        self._timer: IDelayedCall | None = None

    def start(self) -> None:
        """Tell the end, and watch from now on."""
        self._tell()
        self._look()

    def stop(self) -> None:
        """Watch no more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def reload(self) -> None:
        """Read certificate and key again; what cannot be used changes nothing, and is said."""
        try:
            self.tls.reload()
            _log.info("read the certificate again")
        except TLSFileError as error:
            _log.error("kept the old certificate: {error}", error=str(error))
        self._tell()
        if self._timer is not None:
            self._timer.cancel()
            self._look()

    def warnings(self) -> list[str]:
        """What is wrong with the certificate now, a line each."""
        trouble = self.tls.validity.trouble(self._now())
        return [] if trouble is None else [trouble]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _tell(self) -> None:
        not_after = self.tls.validity.not_after
        _log.info("the certificate is valid until {end}", end=shown(not_after))
        self._metrics.certificate_ends(not_after.timestamp())

    def _look(self) -> None:
        for line in self.warnings():
            _log.warn("{line}", line=line)
        delay = self.tls.validity.next_change(self._now())
        self._timer = self._clock.callLater(delay.total_seconds(), self._look)
