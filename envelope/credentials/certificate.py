"""The certificate in use, and warnings before it expires.

An expired certificate does not make the service unready: the client decides which certificates it
accepts, and one that ignores the dates is served as before. `/readyz` shows it as a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.credentials.inuse import CertificateInUse
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.reload import Reload
from envelope.credentials.tls import ServerTLS
from envelope.credentials.validity import utc_text
from envelope.runtime.timers import Timer

_log = Logger(namespace="envelope.certificate")


class WatchedCertificate:
    """Checks the dates of the certificate in `tls` when it is loaded, and at least once a day.

    `wall` returns seconds since the epoch; `clock` (reactor seconds) runs the timer.
    """

    def __init__(
        self,
        tls: ServerTLS,
        clock: IReactorTime,
        wall: Callable[[], float],
        metrics: CredentialMetrics,
    ) -> None:
        self.tls = tls
        self._wall = wall
        self._metrics = metrics
        self._since = wall()
        self._timer = Timer(clock)
        self._reload = Reload(
            clock, "certificate", tls.paths, tls.reload, self._reloaded, metrics.reload_failed, _log
        )

    def start(self) -> None:
        """Log the expiry date, and check dates and files from now on."""
        if self.tls.limitation is not None:
            _log.warn("{line}", line=self.tls.limitation)
        self._report_expiry()
        self._check()
        self._reload.start()

    def stop(self) -> None:
        """Stop checking."""
        self._timer.stop()
        self._reload.stop()

    def reload(self) -> None:
        """Read certificate and key again; keep the old ones until the new ones can be used."""
        self._reload.now()

    def in_use(self) -> CertificateInUse:
        """The certificate in use."""
        validity = self.tls.validity
        return CertificateInUse(
            self.tls.names, validity.not_before.timestamp(), validity.not_after.timestamp(),
            self._since,
        )

    def _reloaded(self) -> None:
        self._since = self._wall()
        self._report_expiry()
        # Before `start` there is nothing to check yet.
        if self._timer.running:
            self._check()

    def warnings(self) -> list[str]:
        """Why clients refuse the certificate, soon will or may, and why it is an old one."""
        return self._complaints() + self._reload.warnings()

    def _complaints(self) -> list[str]:
        lines = (self.tls.validity.trouble(self._now()), self.tls.gap)
        return [line for line in lines if line is not None]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def _report_expiry(self) -> None:
        not_after = self.tls.validity.not_after
        _log.info(
            "the certificate is valid until {until}", event="certificate",
            until=utc_text(not_after),
        )
        self._metrics.certificate_ends(not_after.timestamp())

    def _check(self) -> None:
        for line in self._complaints():
            _log.warn("{line}", event="certificate-warning", line=line)
        delay = self.tls.validity.next_change(self._now())
        self._timer.start(delay.total_seconds(), self._check)
