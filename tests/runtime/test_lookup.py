"""Looking names up in threads that nothing waits for."""

from __future__ import annotations

import threading
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from envelope.runtime.lookup import _DaemonThreads, abandon_lookups_at_the_end


class Reactor:
    """The real reactor, but for the resolver that is installed here."""

    resolver: Any

    def installNameResolver(self, resolver: Any) -> None:
        self.resolver = resolver

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@implementer(IResolutionReceiver)
class Found:
    """The addresses of one name; `done` fires when all are known."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.done: Deferred[None] = Deferred()

    def resolutionBegan(self, resolution: Any) -> None:
        """Begin."""

    def addressResolved(self, address: Any) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.done.callback(None)


async def found(name: str) -> list[Any]:
    seen, there = Reactor(), Found()
    abandon_lookups_at_the_end(seen)
    seen.resolver.resolveHostName(there, name, 443)
    await there.done
    return there.addresses


@pytest_twisted.ensureDeferred
async def test_a_name_is_looked_up() -> None:
    assert IPv4Address("TCP", "127.0.0.1", 443) in await found("127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_a_name_that_is_not_there_has_no_addresses() -> None:
    assert await found("no name") == []


@pytest_twisted.ensureDeferred
async def test_each_call_has_a_thread_that_ends_with_the_process() -> None:
    pool: Any = _DaemonThreads()
    thread = await deferToThreadPool(reactor, pool, threading.current_thread)
    assert thread.daemon
    assert thread is not threading.current_thread()
