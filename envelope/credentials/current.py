"""The credentials in use: the service's certificate, and the keys that tokens are verified with."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from envelope.config import Config
from envelope.config.shown import without_secrets
from envelope.credentials.certificate import WatchedCertificate
from envelope.credentials.fetch import HttpsFetcher, trust_of
from envelope.credentials.inuse import CertificateInUse, KeyInUse
from envelope.credentials.keyfiles import KeyFiles
from envelope.credentials.keys import KeyFileError, KeyRing
from envelope.credentials.metrics import CredentialMetrics
from envelope.credentials.pemfiles import TLSFileError
from envelope.credentials.publishedkeys import merged
from envelope.credentials.reload import Reload
from envelope.credentials.remotekeys import RemoteKeys
from envelope.credentials.tls import ServerTLS
from envelope.credentials.tokens import Claims, TokenExpectations, TokenReason, TokenRefusal, verify

_log = Logger(namespace="envelope")

_UNKNOWN_KEY = TokenRefusal(TokenReason.UNKNOWN_KEY)


class CredentialError(Exception):
    """A key or certificate cannot be used; the text is one line that names the file."""


class Credentials:
    """The certificate and the keys of one service; raises `CredentialError` if one is unusable.

    `wall` returns seconds since the epoch, `chance` a random number from 0 to 1.
    """

    def __init__(
        self,
        config: Config,
        reactor: Any,
        registry: CollectorRegistry,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._config = config
        self._expected = TokenExpectations(
            config.issuer, config.machine, config.log_claim, secrets.token_bytes(32)
        )
        metrics = CredentialMetrics(registry)
        self._certificate: WatchedCertificate | None = None
        self._fetcher: HttpsFetcher | None = None
        self._remote: RemoteKeys | None = None
        self._shared_kids: tuple[str, ...] = ()
        self._wall = wall
        # When each key of the ring came into use, by what it is; seconds since the epoch.
        self._since: dict[tuple[str, str], float] = {}
        self.tls: ServerTLS | None = None
        try:
            self._files = KeyFiles(config.verify_key)
            self._use(self._files.ring)
            self._reloads = [Reload(
                reactor, "keys", config.verify_key, self._files.reload, self._merge,
                metrics.reload_failed, _log,
            )]
            if config.cert is not None and config.key is not None:
                self.tls = ServerTLS.load(config.cert, config.key, config.tls)
                self._certificate = WatchedCertificate(self.tls, reactor, wall, metrics)
            if config.verify_jwks_url is not None:
                url, trust = config.verify_jwks_url, trust_of(config.jwks_ca)
                self._fetcher = HttpsFetcher(reactor, url, trust)
                self._remote = RemoteKeys(
                    self._fetcher, without_secrets(url), reactor, wall, metrics, self._merge,
                    chance,
                )
                self._reloads.append(Reload(
                    reactor, "authorities", () if config.jwks_ca is None else (config.jwks_ca,),
                    self._read_authorities, self._remote.refetch, metrics.reload_failed, _log,
                ))
        except (KeyFileError, TLSFileError) as error:
            raise CredentialError(str(error)) from None

    def verify(self, token: str, now: float) -> Claims | TokenRefusal:
        """See `envelope.credentials.tokens.verify`; `now` is seconds since the epoch."""
        verdict = verify(token, self._ring, self._expected, now)
        if self._remote is not None and verdict == _UNKNOWN_KEY:
            self._remote.unknown_kid()
        return verdict

    def start(self) -> Deferred[None]:
        """Start the timers; fires once the first fetch of keys has ended, and never fails."""
        if self._certificate is not None:
            self._certificate.start()
        for each in self._reloads:
            each.start()
        return succeed(None) if self._remote is None else self._remote.start()

    def stop(self) -> None:
        """Cancel all timers and the fetch under way."""
        if self._certificate is not None:
            self._certificate.stop()
        for each in self._reloads:
            each.stop()
        if self._remote is not None:
            self._remote.stop()

    def reload(self) -> None:
        """Read keys and certificate again; keep the old ones until the new ones can be used."""
        for each in self._reloads:
            each.now()
        if self._certificate is not None:
            self._certificate.reload()

    def problems(self) -> list[str]:
        """Why no client can be admitted, a line each: tokens are required, and there is no key."""
        if self._ring or self._remote is None or not self._config.token_required:
            return []
        return self._remote.trouble()

    def warnings(self) -> list[str]:
        """What the operator should look at although clients are admitted, a line each."""
        lines = [] if self._certificate is None else self._certificate.warnings()
        for each in self._reloads:
            lines += each.warnings()
        if self._remote is None or self.problems():
            return lines
        return lines + self._remote.trouble()

    def keys_in_use(self) -> list[KeyInUse]:
        """The keys that tokens are verified with."""
        return [
            KeyInUse(
                key.kid, key.alg,
                "verify-key" if key.kid in self._files.ring else "verify-jwks-url",
                self._since[key.identity],
            )
            for key in self._ring.values()
        ]

    def certificate_in_use(self) -> CertificateInUse | None:
        """The service's certificate; None without TLS."""
        return None if self._certificate is None else self._certificate.in_use()

    def _use(self, ring: KeyRing) -> None:
        now = self._wall()
        self._ring = ring
        self._since = {
            key.identity: self._since.get(key.identity, now) for key in ring.values()
        }

    def _read_authorities(self) -> None:
        if self._fetcher is not None:
            self._fetcher.trust = trust_of(self._config.jwks_ca)

    def _merge(self) -> None:
        fetched = () if self._remote is None else self._remote.keys
        ring, shared = merged(self._files.ring, fetched)
        self._use(ring)
        if shared and shared != self._shared_kids:
            _log.warn(
                "keys of --verify-key are used instead of fetched ones of the same kid: {kids}",
                kids=", ".join(shared),
            )
        self._shared_kids = shared
