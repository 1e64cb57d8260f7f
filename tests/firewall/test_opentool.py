"""The tool that stays open, where it cannot be started, or ends by itself."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from envelope.firewall.dialect import Dialect
from envelope.firewall.errors import ToolFailed, ToolTimeout
from envelope.firewall.opentool import OpenTool

ECHO = "import sys\nfor line in sys.stdin: print(line, end='')"
DIALECT = Dialect(
    open=("-u", "-c", ECHO), once=(), header="", joint="\n", footer="\n", asks="#", answers_on=1,
)


class Crowded:
    """The reactor of a machine that has too many processes, until some `end`."""

    def __init__(self) -> None:
        self.end = False

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def spawnProcess(self, *args: Any, **kw: Any) -> Any:
        if not self.end:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return reactor.spawnProcess(*args, **kw)


@pytest.mark.process
@ensureDeferred
async def test_a_tool_that_cannot_be_started_is_started_later() -> None:
    """Each change fails by itself until then, and says why."""
    crowded = Crowded()
    tool = OpenTool(crowded, Path(sys.executable), DIALECT)
    for _ in range(2):
        with pytest.raises(ToolFailed, match="temporarily unavailable"):
            await tool.apply(["a change"])
    await tool.stop()
    crowded.end = True
    await tool.apply(["a change"])
    await tool.stop()


# What stays has all the pipes, and ends when the service has let go of them.
LEAVE = "import os, sys\nif not os.fork():\n    sys.stdin.buffer.read()\n    os._exit(0)"


class Watchful:
    """A reactor that tells when a child that it has started has ended, its pipes aside."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def spawnProcess(self, protocol: Any, *args: Any, **kw: Any) -> Any:
        protocol.processExited = lambda _: self.ended.callback(None)
        return reactor.spawnProcess(protocol, *args, **kw)


@pytest.mark.process
@ensureDeferred
async def test_a_tool_that_ends_and_leaves_its_pipes_to_another_process() -> None:
    """A change fails as it does with a tool that hangs, and a stop does not wait for the other."""
    watchful = Watchful()
    leaving = replace(DIALECT, open=("-c", LEAVE))
    tool = OpenTool(watchful, Path(sys.executable), leaving)
    changing = tool.apply(["a change"], 1.0)
    await watchful.ended
    stopping = tool.stop()
    with pytest.raises(ToolFailed):
        await changing
    await stopping
    tool = OpenTool(reactor, Path(sys.executable), leaving)
    with pytest.raises(ToolTimeout):
        await tool.apply(["a change"], 0.5)
