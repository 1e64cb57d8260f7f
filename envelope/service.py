"""The service as a whole: its parts, and the order in which it starts and stops.

Start: bind every port, install the rules, get the keys, then accept clients. Stop: drain, close the
ports, end every session, put the rules back. This is the only module that imports every part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.admin.control import Operations, revoke
from envelope.admin.controlsocket import ControlError, ControlSocket
from envelope.admin.site import admin_site, status_site
from envelope.admin.status import Status
from envelope.config import Config
from envelope.credentials.current import CredentialError, Credentials
from envelope.firewall import FirewallError, IFirewall
from envelope.firewall.backends import make_firewall
from envelope.firewall.metrics import FirewallMetrics
from envelope.front.factory import FrontFactory
from envelope.front.limits import Limits
from envelope.front.listeners import ListenError
from envelope.front.metrics import ConnectionMetrics
from envelope.listening import ListeningPorts
from envelope.metrics import new_registry
from envelope.preflight.findings import StartError
from envelope.preflight.login import device_addresses
from envelope.preflight.privileges import explained
from envelope.protocol import End
from envelope.runtime.background import StartReport
from envelope.runtime.collector import Collector
from envelope.runtime.exitstatus import ExitStatus
from envelope.runtime.metrics import LogMetrics
from envelope.runtime.servicelog import service_log
from envelope.runtime.servicemanager import ServiceManager
from envelope.runtime.signals import Answer, signals
from envelope.sessions.clientaddress import HostAddresses
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from envelope.sessions.txrate import TransmitRate

_log = Logger(namespace="envelope")

# Seconds that a stop waits for revocations while the firewall fails, and for the close frames of
# clients.
REVOKE_WAIT: Final = 20.0
CLOSE_WAIT: Final = 3.0


class EnvelopeService(Service):
    """The running service.

    The constructor raises `StartError` when a key, a certificate or a tool cannot be used. `report`
    is told when the service is ready or why it is not.
    """

    def __init__(
        self, reactor: Any, config: Config, environ: dict[str, str],
        report: StartReport | None = None,
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._environ = environ
        self._report = report or StartReport()
        self._exit = ExitStatus(self._report)
        self.registry = new_registry()
        LogMetrics(self.registry).watch(lambda: service_log.dropped)
        sessions = SessionMetrics(self.registry)
        self._connections = ConnectionMetrics(self.registry)
        try:
            self._credentials = Credentials(config, reactor, self.registry)
            self.firewall = self._make_firewall()
        except (CredentialError, FirewallError) as error:
            raise StartError(str(error)) from None
        self._rate: TransmitRate | None = None
        if config.tx_device is not None:
            self._rate = TransmitRate(config.tx_device, config.tx_max_rate, reactor, sessions)
        self.sessions = Sessions(
            reactor, config, self.firewall, self._credentials.verify, sessions, time.time,
            None if self._rate is None or config.tx_max_rate is None else self._rate.over,
            HostAddresses(reactor, device_addresses),
        )
        self._front = FrontFactory(
            self.sessions, reactor, Limits.of(config), dropped=self._connections.dropped
        )
        self._connections.watch(self._front.count)
        self._collector = Collector(reactor, lambda: len(self.sessions))
        self._ports = ListeningPorts(reactor, self._front, self._connections)
        self.status = Status(
            config, lambda: self._state, self.sessions, sessions, self.firewall, self._credentials,
            self._rate,
        )
        self._control = ControlSocket(reactor, config.control, environ, Operations(
            self.status.read, partial(revoke, self.sessions),
        ))
        self._manager = ServiceManager(
            reactor, environ, lambda: f"sessions: {len(self.sessions)}, {self.sessions.slots}"
        )
        # Whether the firewall was opened, so that a stop has to close it.
        self._guarded = False
        # "starting", "running", "stopping" or "failed".
        self._state = "starting"
        self._stops: list[int] = []  # the signals that have asked for a stop
        self._starting: Deferred[None] = succeed(None)

    def _make_firewall(self) -> IFirewall:
        # Made for every kind, so that /metrics always has the same names.
        metrics = FirewallMetrics(self.registry)
        path = self._environ.get("PATH", "")
        return make_firewall(self._reactor, self._config, metrics, path)

    # -- start and stop --------------------------------------------------------------------

    def startService(self) -> None:
        """Begin the start. Its result is in the log, in `/readyz` and in the exit status."""
        super().startService()
        self._stops = signals.attend(self._reactor, {
            Answer.RELOAD: self.reload, Answer.REOPEN: service_log.reopen,
        })
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._start_failed)

    async def _start(self) -> None:
        # A start that fails stops the reactor, which has to run for that.
        await deferLater(self._reactor, 0)
        steps = (self._bind_ports, self._install_rules, self._get_keys, self._accept_clients)
        for step in steps:
            # A stop may be asked for before and during each step; it waits for this coroutine.
            if self._stops or self._state != "starting":
                return
            await step()

    def stopService(self) -> Deferred[None]:
        """Stop; the result fires when every session has ended and the rules are put back."""
        super().stopService()
        self._state = "stopping"
        self._manager.stopping()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.sessions.stopping = True
        await self._attempt(self._credentials.stop)
        await self._attempt(self._collector.stop)
        self._ports.give_up()
        await self._starting
        await self._drain()
        for port in self._ports.clients:
            await self._attempt(port.stopListening)
        await self._attempt(lambda: self.sessions.end_all(End.SHUTDOWN))
        await self._at_most(REVOKE_WAIT, self.sessions.when_empty())
        await self._at_most(CLOSE_WAIT, self._front.when_empty())
        if self._guarded:
            await self._attempt(self.firewall.close)
        await self._attempt(self._front.abort_all)
        # The status page counts on an event every few seconds, also during a drain.
        await self._attempt(self.status.stop)
        if self._rate is not None:
            await self._attempt(self._rate.stop)
        for port in self._ports.operators:
            await self._attempt(port.stopListening)
        await self._attempt(self._control.close)
        self._manager.close()
        _log.info("stopped", event="stopped")

    # -- the steps of both -----------------------------------------------------------------

    async def _bind_ports(self) -> None:
        try:
            for spec in self._config.listen:
                await self._ports.bind_for_clients(spec, self._credentials.tls)
            site = admin_site(self.registry, self.status, self._reactor)
            for spec in self._config.admin:
                await self._ports.open_for_operators(spec, site, "metrics and health")
            site = status_site(
                self.registry, self.status, self._config.status_host, self._reactor)
            for spec in self._config.status:
                # The default may be missing where there is no 127.0.0.1.
                given = spec not in Config().status
                await self._ports.open_for_operators(spec, site, "status page", given)
            if self._config.status:
                self.status.start(self._reactor)
            self._control.open()
        except (ListenError, ControlError) as error:
            raise StartError(str(error)) from None

    async def _install_rules(self) -> None:
        self._guarded = True
        try:
            await self.firewall.open(self._ports.open_ports(), self._ports.shut_ports())
        except FirewallError as error:
            # It took its rules back; after a start that was cut short, `close` says what is left.
            self._guarded = bool(self._stops)
            line = explained(error, self._config, self._environ)
            raise StartError(service_log.masked(line)) from None

    async def _get_keys(self) -> None:
        if self._rate is not None:
            self._rate.start()
        await self._credentials.start()

    async def _accept_clients(self) -> None:
        self._state = "running"
        self._collector.start()
        self._ports.accept_clients()
        if self._credentials.tls is None:
            _log.warn("INSECURE: no certificate, so tokens travel in the clear")
        _log.info("ready", event="ready")
        self._manager.ready()
        if not self._report.ready():
            _log.warn("the command that waited for this start has ended, so the start is given up")
            self._reactor.stop()

    def _start_failed(self, failure: Any) -> None:
        if self._stops and failure.check(StartError):
            # Ctrl-C reaches the firewall's tools as well, so they fail.
            _log.info("the start was cut short: {why}", why=failure.getErrorMessage())
            return
        if failure.check(StartError):
            self._exit.fail(failure.getErrorMessage())
        else:
            _log.failure("the start failed unexpectedly", failure=failure)
            self._exit.fail("the start failed unexpectedly; the log has the traceback")
        self._state = "failed"
        self._reactor.stop()

    async def _drain(self) -> None:
        if len(self.sessions) and self._config.drain:
            _log.info("draining for at most {seconds:g} s", event="draining",
                      seconds=self._config.drain)
            await self._at_most(self._config.drain, self.sessions.when_empty())

    async def _attempt(self, step: Callable[[], object]) -> None:
        await self._exit.attempt(step, FirewallError)

    def _at_most(self, seconds: float, waited: Deferred[None]) -> Deferred[None]:
        return waited.addTimeout(seconds, self._reactor).addErrback(lambda _: None)

    # -- while it runs ---------------------------------------------------------------------

    def reload(self) -> None:
        """SIGHUP: read keys and certificate again; a file that cannot be used changes nothing."""
        self._manager.reloaded(self._credentials.reload)
