"""Flows that outlast a change of the rules: those of clients end, the host's own live on.

With `--established=cut` the rules let in replies alone: packets of flows that this host began, as
the kernel's connection tracking sees it. Tracking may be wrong. It takes the first packet that it
meets of a TCP connection for its beginning (`nf_conntrack_tcp_loose`), and it forgets a connection
that is silent for long, or whose peer sends a reset that this host does not accept. Therefore:

* When the rules come, tracking is told of the host's own connections, and all others that came
  through the guarded device are destroyed.
* When a grant ends, the connections of its clients are destroyed before its end is reported.
* While the service runs, tracking picks up no TCP connection midway, where that may be set. This
  covers a grant that the kernel ends by itself, after the service was killed.

Who opened a connection is judged by its socket, which a peer cannot deceive (`opened_here`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from envelope.addresses import Network, Opening, PortRange
from envelope.firewall.cooperate import in_turns
from envelope.firewall.flows.connections import (
    JUDGED_AT_ONCE,
    TRANSPORTS,
    Connection,
    Ended,
    SocketTable,
    Tracking,
    how_cut_holds,
)
from envelope.firewall.flows.cutter import Cutter
from envelope.firewall.flows.judge import Judge
from envelope.firewall.flows.udp import UdpFlows
from envelope.firewall.granted import Cut
from envelope.firewall.policy import RuleChoices

_EVERYONE: Final = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

# An entry of no real connection. When tracking has lost it, all entries may have been flushed.
_NOWHERE: Final = ip_address("127.0.0.1")
_SIGN: Final = Connection("udp", False, _NOWHERE, 1, _NOWHERE, 1, True, 0, b"")

_log = Logger(namespace="envelope.firewall")


class Flows:
    """Ends and keeps flows; only with `--baseline=service` and `--established=cut`.

    `prepare` is called before the rules are installed, `start` after that, `stop` before they are
    removed, and `close` at the end.
    """

    def __init__(self, reactor: IReactorTime, sockets: SocketTable, tracking: Tracking) -> None:
        self._sockets = sockets
        self._tracking = tracking
        self._reactor = reactor
        # The devices whose packets the rules refuse.
        self._devices: set[str] = set()
        self._open: tuple[Opening, ...] = ()
        self._proxies: tuple[PortRange, ...] = ()
        # None while nothing is destroyed.
        self._cutter: Cutter | None = None
        self._udp: UdpFlows | None = None
        # Whether connections are picked up midway, and why that cannot be changed.
        self._loose = False
        self._fixed = ""
        self._gives_back = False
        # Whether the rules stay in force after a stop, with all that they need.
        self._stays = False
        self._looking = self._failed = False

    async def prepare(self, choices: RuleChoices) -> bool:
        """Let tracking know the host's own connections, before the rules are in force.

        Returns whether tracking picks up connections midway and this can be changed. The rules have
        to remember that, so that the setting is restored even after this process was killed.
        """
        if choices.established != "cut":
            return False
        if choices.baseline != "service":
            _log.info("cut: with --baseline=operator your own rules decide about established "
                      "flows: accept those with the direction of replies alone (--ctdir REPLY)")
            return False
        self._devices.add(choices.device)
        self._stays = choices.on_stop == "keep"
        self._open = (*choices.service_ports, *choices.allow)
        self._proxies = tuple(PortRange("tcp", port, port) for port in choices.proxy_port)
        await self._keep_own()
        try:
            self._loose = self._tracking.loose()
            if self._loose:
                # Tells whether it can be set, before anything depends on that.
                self._tracking.set_loose(True)
        except OSError as error:
            self._fixed = str(error.strerror)
        return self._loose and not self._fixed

    async def start(self, was_loose: bool) -> bool:
        """Once the rules are in force: end the flows of strangers, and say how `cut` holds.

        With `was_loose`, the rules remember that connections were picked up midway before. Returns
        whether that is restored, so that they need not remember it any longer.
        """
        self._gives_back = was_loose
        if not self._devices:
            return self._give_back()
        if self._loose and not self._fixed:
            self._set_loose(False)
        # Connections opened since `prepare`: tracking that has only begun meets them midway.
        await self._keep_own()
        try:
            indestructible = self._sockets.why_indestructible()
        except OSError as error:
            indestructible = str(error.strerror)
        holds, line = how_cut_holds(indestructible, self._fixed)
        (_log.info if holds else _log.warn)("{line}", line=line)
        self._udp = UdpFlows(
            self._reactor, self._sockets, self._tracking, self._devices, self._open
        )
        if not indestructible:
            self._cutter = Cutter(self._reactor, self._sockets, self._devices)
        await gatherResults([self._end(Ended(each, self._open)) for each in _EVERYONE.values()])
        return False

    async def _keep_own(self) -> None:
        """Let tracking know the host's own connections."""
        failures: list[str] = []
        try:
            self._sockets.prepare()
            for transport in TRANSPORTS:
                judge = Judge(self._sockets, self._devices, transport)
                connections = self._sockets.connections(transport)
                failures += await in_turns(
                    self._reactor, connections, partial(self._tell, judge), JUDGED_AT_ONCE
                )
        except OSError as error:
            # Closed meanwhile, there is nothing to keep.
            if self._devices:
                _log.warn("the host's own connections cannot be listed, and may be cut: {why}",
                          why=error.strerror)
        if failures:
            _log.warn("{number} of the host's own connections may be cut: connection tracking "
                      "cannot be told of them ({why})", number=len(failures), why=failures[-1])

    def _tell(self, judge: Judge, connections: list[Connection]) -> list[str]:
        """Why tracking could not be told of each of those that could not."""
        failures: list[str] = []
        # All may have been closed since the turn before.
        for each in connections if self._devices else ():
            # Most are clients', and cost nothing more.
            if each.opened is not False and judge.is_own(each):
                try:
                    self._tracking.tell(each)
                except OSError as error:
                    failures.append(str(error.strerror))
        return failures

    def ended(self, cut: Cut) -> Deferred[None] | None:
        """Destroy what was opened under a grant, now that it is over; fires when that is done.

        Never fails. None when there is nothing to do, as for a grant that let nothing in. Until the
        last grant of its family ends, the `--proxy-port`s stay open to everyone.
        """
        ends = []
        if not cut.unused:
            proxies = self._proxies if cut.others else ()
            ends.append(Ended(cut.network, (*self._open, *proxies, *cut.still_open)))
        if self._proxies and not cut.others:
            ends.append(Ended(_EVERYONE[cut.network.version], self._open, self._proxies))
        if not ends:
            return None
        return gatherResults([self._end(each) for each in ends]).addCallback(lambda _: None)

    def _end(self, ended: Ended) -> Deferred[None]:
        ends = [each.end(ended) for each in (self._udp, self._cutter) if each is not None]
        return gatherResults(ends).addCallback(lambda _: None)

    async def look(self, networks: Iterable[Network]) -> None:
        """Tell tracking again what it may have forgotten; `networks` are those with grants."""
        if not self._devices or self._looking:
            return
        self._looking = True
        try:
            # The entry lasts two minutes, or until all are flushed.
            if self._tracking.tell(_SIGN):
                await self._keep_own()
            if self._udp is not None:
                await self._udp.hold_all(networks)
        except OSError as error:
            if self._devices and not self._failed:
                _log.warn("connection tracking cannot be asked: {why}", why=error.strerror)
            self._failed = True
        finally:
            self._looking = False

    def guard(self, devices: Iterable[str]) -> None:
        """From now on, flows through these devices are meant."""
        if self._devices:
            self._devices.clear()
            self._devices.update(devices)

    def granted(self, network: Network, ports: tuple[PortRange, ...] = ()) -> None:
        """A network has a new grant: nothing that it opens under that is destroyed.

        The grant opens `ports`, or everything without any.
        """
        if self._cutter is not None:
            self._cutter.spare(network, ports)

    def stop(self, failed: bool = False) -> None:
        """Restore the kernel's setting, while the rules still remember it.

        A start that `failed` leaves it as it was: what a killed service left stays in force.
        """
        if self._udp is not None:
            self._udp.stop()
        self._udp = self._cutter = None
        if self._loose if failed else not self._stays:
            self._give_back()

    def close(self) -> None:
        """Let go of the kernel, and do nothing any more."""
        self._udp = self._cutter = None
        self._devices.clear()
        self._sockets.close()
        self._tracking.close()

    def _give_back(self) -> bool:
        restored = self._gives_back and self._set_loose(True)
        self._gives_back = self._gives_back and not restored
        return restored

    def _set_loose(self, loose: bool) -> bool:
        try:
            self._tracking.set_loose(loose)
        except OSError as error:
            self._fixed = str(error.strerror)
            _log.error("nf_conntrack_tcp_loose cannot be set to {value}: {why}",
                       value=int(loose), why=error.strerror)
            return False
        return True
