"""Wiring, and the order of life: listen, rules, then doors open; doors shut, then rules go.

The only module that knows every other one and the global reactor.
"""

from __future__ import annotations

import signal
import time
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.admin.site import admin_site
from envelope.config import Config
from envelope.credentials.current import CredentialError, Credentials
from envelope.firewall import FirewallError, IFirewall
from envelope.firewall.iptables import IptablesFirewall
from envelope.firewall.memory import MemoryFirewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.nftables import NftablesFirewall
from envelope.front.factory import FrontFactory
from envelope.front.limits import Limits
from envelope.front.listeners import ListenError, listen, service_ports
from envelope.front.metrics import ConnectionMetrics
from envelope.metrics import new_registry
from envelope.preflight import explained, pass_on_needed
from envelope.protocol import End
from envelope.runtime.accepting import accept_carefully, open_door
from envelope.runtime.background import StartReport
from envelope.runtime.collector import Collector
from envelope.runtime.exitstatus import ExitStatus, stop_cleanly_on_signals
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from envelope.sessions.txrate import TransmitRate

_log = Logger(namespace="envelope")

# How long (seconds) a stop waits for revocations that the firewall refuses, and for peers that
# do not answer their close frame.
REVOKE_WAIT = 20.0
GOODBYE_WAIT = 3.0


class StartError(Exception):
    """The service cannot start; the text is one line for the operator."""


class EnvelopeService(Service):
    """The running service."""

    def __init__(
        self, reactor: Any, config: Config, environ: dict[str, str],
        report: StartReport | None = None,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._report = report or StartReport()
        self._exit = ExitStatus(self._report)
        self.registry = new_registry()
        sessions = SessionMetrics(self.registry)
        self._connections = ConnectionMetrics(self.registry)
        try:
            self._credentials = Credentials(config, reactor, self.registry)
        except CredentialError as error:
            raise StartError(str(error)) from None
        self._search_path = environ.get("PATH", "")
        self.firewall = self._make_firewall()
        self._rate: TransmitRate | None = None
        if config.tx_device is not None:
            self._rate = TransmitRate(config.tx_device, config.tx_max_rate, reactor, sessions)
        self.sessions = Sessions(
            reactor, config, self.firewall, self._credentials.verify, sessions, time.time,
            None if self._rate is None or config.tx_max_rate is None else self._rate.over,
        )
        self._front = FrontFactory(
            self.sessions, reactor, Limits.of(config), dropped=self._connections.dropped
        )
        self._connections.watch(self._front.number)
        self._collector = Collector(reactor, lambda: len(self.sessions))
        self._doors: list[IListeningPort] = []
        self._admin: list[IListeningPort] = []
        self._state = "starting"
        self._starting: Deferred[None] | None = None

    # -- parts -----------------------------------------------------------------------------

    def _make_firewall(self) -> IFirewall:
        metrics = FirewallMetrics(self.registry)
        if self._config.firewall == "none":
            return MemoryFirewall()
        kind = NftablesFirewall if self._config.firewall == "nftables" else IptablesFirewall
        try:
            pass_on_needed(self._config, self._search_path)
            return kind(self._reactor, self._config, metrics, self._search_path)
        except FirewallError as error:
            raise StartError(str(error)) from None

    # -- start -----------------------------------------------------------------------------

    def startService(self) -> None:
        """Begin the start; its end is told by the log, `/readyz`, and the exit status."""
        super().startService()
        self._stops = stop_cleanly_on_signals(self._reactor, {signal.SIGHUP: self.reload})
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    async def _start(self) -> None:
        # Whatever is started once the reactor runs can also be stopped by it.
        await deferLater(self._reactor, 0)
        try:
            await self._listen()
            await self.firewall.open(service_ports(self._doors))
        except ListenError as error:
            raise StartError(str(error)) from None
        except FirewallError as error:
            raise StartError(explained(error, self._config, self._search_path)) from None
        if self._state != "starting":
            return
        if self._rate is not None:
            self._rate.start()
        await self._credentials.start()
        # A stop may have begun meanwhile.
        if self._state != "starting":
            return
        self._state = "running"
        self._collector.start()
        for port in self._doors:
            open_door(port)
        if self._credentials.tls is None:
            _log.warn("INSECURE: no certificate, so tokens travel in the clear")
        _log.info("ready")
        if not self._report.ready():
            _log.warn("whoever waited for this start has gone, so it is given up")
            self._reactor.stop()

    async def _listen(self) -> None:
        for spec in self._config.listen:
            ports = await listen(
                self._reactor, spec, self._front, self._credentials.tls,
                lambda: self._connections.dropped("proxy"),
            )
            self._doors += ports
            for port in ports:
                accept_carefully(port, self._reactor, self._front.make_room)
                _log.info("listening on {host}", host=port.getHost())
        site = admin_site(self.registry, self.reasons_not_ready, warnings=self.warnings)
        for spec in self._config.admin:
            ports = await listen(self._reactor, spec, site, None)
            self._admin += ports
            for port in ports:
                accept_carefully(port, self._reactor, self._front.make_room)
                open_door(port)
                _log.info("metrics and health on {host}", host=port.getHost())

    def _start_failed(self, failure: Any) -> None:
        if self._stops and failure.check(StartError):
            # Ctrl-C ends our tools as well; what they began is taken back.
            _log.info("the start was cut short: {why}", why=failure.getErrorMessage())
            return
        if failure.check(StartError):
            self._exit.fail(failure.getErrorMessage())
        else:
            _log.failure("the start broke", failure=failure)
            self._exit.fail("the start broke; the log says how")
        self._state = "failed"
        self._reactor.stop()

    # -- while it runs ---------------------------------------------------------------------

    def reasons_not_ready(self) -> list[str]:
        """Why clients should not be sent here now, a line each."""
        reasons = [] if self._state == "running" else [self._state]
        return reasons + self.firewall.problems() + self._credentials.problems()

    def warnings(self) -> list[str]:
        """What an operator should look after although clients can come, a line each."""
        rate = [] if self._rate is None else self._rate.warnings()
        return self._credentials.warnings() + rate

    def reload(self) -> None:
        """SIGHUP: read keys and certificate again; what cannot be read changes nothing."""
        self._credentials.reload()

    # -- stop ------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Drain, close every session with its close frame, put the rules back."""
        super().stopService()
        was, self._state = self._state, "stopping"
        return Deferred.fromCoroutine(self._stop(was))

    async def _stop(self, was: str) -> None:
        self.sessions.stopping = True
        self._credentials.stop()
        self._collector.stop()
        if self._rate is not None:
            self._rate.stop()
        if was != "failed" and self._starting is not None:
            await self._starting
        if len(self.sessions) and self._config.drain:
            _log.info("draining for at most {seconds:g} s", seconds=self._config.drain)
            await self._at_most(self._config.drain, self.sessions.when_empty())
        await gatherResults([maybeDeferred(port.stopListening) for port in self._doors])
        self.sessions.end_all(End.SHUTDOWN)
        await self._at_most(REVOKE_WAIT, self.sessions.when_empty())
        await self._at_most(GOODBYE_WAIT, self._front.when_empty())
        if was != "failed":
            try:
                await self.firewall.close()
            except FirewallError as error:
                _log.error("{error}", error=str(error))
                self._exit.fail(str(error))
        self._front.abort_all()
        await gatherResults([maybeDeferred(port.stopListening) for port in self._admin])
        _log.info("stopped")

    def _at_most(self, seconds: float, waited: Deferred[None]) -> Deferred[None]:
        return waited.addTimeout(seconds, self._reactor).addErrback(lambda _: None)


