"""Destroys the sockets of clients whose grants have ended, many grants at a time."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import islice
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from envelope.addresses import Network, PortRange
from envelope.firewall.cooperate import in_turns
from envelope.firewall.flows.connections import (
    JUDGED_AT_ONCE,
    READ_AT_ONCE,
    TRANSPORTS,
    Clients,
    Connection,
    Ended,
    SocketTable,
)
from envelope.firewall.flows.judge import Judge

# Grants that share a list of sockets: the kernel compares each socket with each of their networks.
MOST_AT_ONCE: Final = 128
# Under load, listing and destroying take one part in so many of the reactor's time.
_SHARE: Final = 16
# Seconds between two batches at most, whatever the share is then.
_LONGEST_PAUSE: Final = 0.02
# A list may miss a socket when another one goes meanwhile, so it is read until it is empty.
_PASSES: Final = 3

_log = Logger(namespace="envelope.firewall")


class Cutter:
    """Destroys in batches what has ended, of the flows through `devices`, which may change."""

    def __init__(
        self, reactor: IReactorTime, sockets: SocketTable, devices: Collection[str]
    ) -> None:
        self._reactor = reactor
        self._sockets = sockets
        self._devices = devices
        # By network, because each new grant asks for its own.
        self._waiting: dict[Network, list[tuple[Ended, Deferred[None]]]] = {}
        self._working = False
        self._ending = Clients(())
        # When (reactor seconds) sockets may be listed again.
        self._not_before = 0.0

    def end(self, ended: Ended) -> Deferred[None]:
        """Destroy what has ended; fires when it is done, and never fails."""
        done: Deferred[None] = Deferred()
        self._waiting.setdefault(ended.network, []).append((ended, done))
        if not self._working:
            self._working = True
            Deferred.fromCoroutine(self._work())
        return done

    def spare(self, network: Network, ports: tuple[PortRange, ...] = ()) -> None:
        """A network has a new grant: what it opens under that is not to be destroyed.

        The grant opens `ports`, or everything without any.
        """
        if self._ending:
            self._ending.spare(network, ports)
        if not self._waiting or network not in self._waiting:
            return
        if ports:
            self._waiting[network] = [
                (ended.without(ports), done) for ended, done in self._waiting[network]
            ]
            return
        for _, done in self._waiting.pop(network):
            done.callback(None)

    async def _work(self) -> None:
        while self._waiting:
            # Grants that end in one turn, or during the pause, share a list.
            wait = self._not_before - self._reactor.seconds()
            await deferLater(self._reactor, max(0.0, wait))
            batch = [
                each for network in [*islice(self._waiting, MOST_AT_ONCE)]
                for each in self._waiting.pop(network)
            ]
            began = self._reactor.seconds()
            self._ending = Clients(ended for ended, _ in batch)
            try:
                await self._destroy()
            except OSError as error:
                # Without devices all is closed.
                if self._devices:
                    _log.error("flows may stay open after their grant: {why}", why=error.strerror)
            except Exception:
                # A revocation waits for this, whatever the kernel has answered.
                _log.failure("ending flows broke")
            self._ending = Clients(())
            now = self._reactor.seconds()
            self._not_before = now + min(_LONGEST_PAUSE, (_SHARE - 1) * (now - began))
            for _, done in batch:
                done.callback(None)
        self._working = False

    async def _destroy(self) -> None:
        for _ in range(_PASSES):
            # All may have been let in again meanwhile.
            if not self._ending:
                return
            number = 0
            for transport in TRANSPORTS:
                covered = await in_turns(
                    self._reactor,
                    self._sockets.connections(transport, self._ending.networks),
                    self._covered, READ_AT_ONCE,
                )
                if covered:
                    judge = Judge(self._sockets, self._devices, transport)
                    number += len(await in_turns(
                        self._reactor, covered, partial(self._destroy_strangers, judge),
                        JUDGED_AT_ONCE,
                    ))
            if not number:
                return

    def _covered(self, connections: list[Connection]) -> list[Connection]:
        return [
            each for each in connections
            if self._ending.lose(each.remote, each.transport, each.local_port)
        ]

    def _destroy_strangers(
        self, judge: Judge, connections: list[Connection]
    ) -> list[Connection]:
        """Destroy those that this host has not opened, and return them."""
        strangers = [each for each in connections if judge.is_own(each) is False]
        for each in strangers:
            self._sockets.destroy(each)
        return strangers
