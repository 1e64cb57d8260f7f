"""What the service proves itself with, and what it checks tokens with: read, watched, read again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.certificate import WatchedCertificate
from envelope.config import Config
from envelope.credentialmetrics import CredentialMetrics
from envelope.keys import KeyFileError, load_key_ring
from envelope.tls import ServerTLS, TLSFileError
from envelope.tokens import Claims, TokenExpectations, TokenRefusal, verify

_log = Logger(namespace="envelope")


class CredentialError(Exception):
    """A key or certificate cannot be used; the text is one line that names the file."""


class Credentials:
    """The certificate and the keys of one service; raises `CredentialError` when they are bad."""

    def __init__(
        self,
        config: Config,
        reactor: IReactorTime,
        registry: CollectorRegistry,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._paths = config.verify_key
        self._expected = TokenExpectations(config.issuer, config.machine)
        metrics = CredentialMetrics(registry)
        self._certificate: WatchedCertificate | None = None
        self.tls: ServerTLS | None = None
        try:
            self._keys = load_key_ring(self._paths)
            if config.cert is not None and config.key is not None:
                self.tls = ServerTLS.load(config.cert, config.key, config.tls)
                self._certificate = WatchedCertificate(self.tls, reactor, wall, metrics)
        except (KeyFileError, TLSFileError) as error:
            raise CredentialError(str(error)) from None

    def verify(self, token: str, now: float) -> Claims | TokenRefusal:
        """See `envelope.tokens.verify`; `now` is seconds since the epoch."""
        return verify(token, self._keys, self._expected, now)

    def start(self) -> None:
        """Begin to watch."""
        if self._certificate is not None:
            self._certificate.start()

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._certificate is not None:
            self._certificate.stop()

    def reload(self) -> None:
        """Read keys and certificate again; what cannot be read changes nothing, and is said."""
        try:
            self._keys = load_key_ring(self._paths)
            _log.info("read the keys again")
        except KeyFileError as error:
            _log.error("kept the old keys: {error}", error=str(error))
        if self._certificate is not None:
            self._certificate.reload()

    def warnings(self) -> list[str]:
        """What an operator should look after although clients can come, a line each."""
        return [] if self._certificate is None else self._certificate.warnings()
