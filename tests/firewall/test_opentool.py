"""The tool that stays open, where it cannot be started."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor

from envelope.firewall.dialect import Dialect
from envelope.firewall.errors import ToolFailed
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
