"""nft: it stays open to write transactions, and runs once to show our table.

`nft -i` reads one transaction per line. When one fails it says so on standard error and goes on.
To acknowledge, it is given a line that is no command: nft repeats it in its error message, once
everything before it is done. Nothing else is dependable: nft is silent about a success, and its
standard output depends on the line editor it was built with.

That line editor reads byte by byte, so long transactions get a process of their own (10,000
elements: 0.15 s instead of 0.75). It remembers every line and searches all of them at each new one
(nft 1.0.6, libedit: 0.24 ms a change at first, 0.96 after 20,000), so the process is replaced after
`lifetime` transactions. And at its end it would write them to `.nft.history` in its home.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from envelope.firewall.dialect import Dialect
from envelope.firewall.errors import ToolFailed
from envelope.firewall.nftables.rules import TABLE
from envelope.firewall.opentool import OpenTool
from envelope.firewall.process import CLEAN_ENVIRONMENT, IProcessReactor, run

# Seconds; 10,000 elements take a quarter of one.
LIST_WAIT: Final = 5.0
DIALECT: Final = Dialect(
    open=("-i",), once=("-f", "-"), header="", joint="; ", footer="\n",
    asks="envelope-done-", answers_on=2, complaint=b"Error:", expected=1,
    # A pipe takes this much whole or not at all (pipe(7), PIPE_BUF); nft would run half a line.
    longest=4096 - 64, lifetime=1000,
    # A home directory in which nft cannot make a file.
    environment={**CLEAN_ENVIRONMENT, "HOME": "/dev/null"},
)


class Nft:
    """Runs nft: `writer` changes the rules, `show` reads our table."""

    def __init__(self, reactor: IProcessReactor, tool: Path) -> None:
        self._reactor = reactor
        self._tool = tool
        self.writer = OpenTool(reactor, tool, DIALECT)

    def show(self) -> Deferred[bytes]:
        """Our table with its rules' handles, empty when there is none; fails with `ToolFailed`."""
        argv = (str(self._tool), "-a", "list", "table", *TABLE.split())
        absent = f"{self._tool.name}: No such file or directory"

        def failed(failure: Failure) -> bytes:
            failure.trap(ToolFailed)
            if not failure.getErrorMessage().startswith(absent):
                failure.raiseException()
            return b""

        shown = run(self._reactor, argv, LIST_WAIT).addCallback(lambda finished: finished.output)
        return shown.addErrback(failed)
