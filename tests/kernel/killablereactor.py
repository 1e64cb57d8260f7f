"""A reactor that can be killed as `kill -9` kills a process: nothing under way goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorProcess,
    IReactorTime,
    IReadDescriptor,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer


class _Child(ProcessProtocol):
    """Passes a child process's events on until the reactor is dead."""

    def __init__(self, owner: KillableReactor, heard_by: ProcessProtocol) -> None:
        self.owner = owner
        self.heard_by = heard_by
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.heard_by.makeConnection(self.transport)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if not self.owner.dead:
            self.heard_by.childDataReceived(childFD, data)

    def childConnectionLost(self, childFD: int) -> None:
        if not self.owner.dead:
            self.heard_by.childConnectionLost(childFD)

    def processExited(self, reason: Failure) -> None:
        if not self.owner.dead:
            self.heard_by.processExited(reason)

    def processEnded(self, reason: Failure) -> None:
        self.owner.children.discard(self)
        if not self.owner.dead:
            self.heard_by.processEnded(reason)
        self.gone.callback(None)


@implementer(IReactorTime, IReactorProcess)
class KillableReactor:
    """The real reactor's timers, descriptors and child processes, for one owner.

    Its clock runs `speed` times as fast as the real reactor's.
    """

    def __init__(self, speed: float = 1.0) -> None:
        self.dead = False
        self.children: set[_Child] = set()
        self._speed = speed
        self._born = reactor.seconds()
        self._calls: list[IDelayedCall] = []
        self._readers: set[IReadDescriptor] = set()

    def seconds(self) -> float:
        return self._born + (reactor.seconds() - self._born) * self._speed

    def callLater(self, delay: float, call: Callable[..., object], *args: Any, **kw: Any) -> Any:
        made = reactor.callLater(delay / self._speed, call, *args, **kw)
        self._calls = [each for each in self._calls if each.active()]
        self._calls.append(made)
        return made

    def getDelayedCalls(self) -> list[IDelayedCall]:
        return [each for each in self._calls if each.active()]

    def addReader(self, reader: IReadDescriptor) -> None:
        self._readers.add(reader)
        reactor.addReader(reader)

    def removeReader(self, reader: IReadDescriptor) -> None:
        self._readers.discard(reader)
        reactor.removeReader(reader)

    def spawnProcess(self, processProtocol: ProcessProtocol, *args: Any, **kw: Any) -> Any:
        child = _Child(self, processProtocol)
        self.children.add(child)
        return reactor.spawnProcess(child, *args, **kw)

    def pids(self) -> list[int]:
        return [child.transport.pid for child in self.children if child.transport.pid]

    def kill(self, children_too: bool = True) -> Deferred[Any]:
        """Cancel all timers, read no descriptor, and close the pipes to the children.

        With `children_too`, kill those.

        Fires when all children have ended.
        """
        self.dead = True
        for call in self.getDelayedCalls():
            call.cancel()
        for reader in list(self._readers):
            self.removeReader(reader)
        living = list(self.children)
        for child in living:
            if children_too and child.transport.pid:
                child.transport.signalProcess("KILL")
            child.transport.loseConnection()
        return DeferredList([child.gone for child in living])
