"""iptables-restore as a tool that stays open.

`iptables-restore --noflush -v` stays open between transactions and echoes a comment line once it
has committed what came before it (iptables 1.8.9, both kinds: 0.07 ms a change instead of the
50 ms that a process per rule takes). A child killed halfway through a transaction has applied
nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from envelope.firewall.dialect import Dialect
from envelope.firewall.opentool import OpenTool
from envelope.firewall.process import IProcessReactor

# Seconds the tool waits for the lock that iptables-legacy shares across the machine: less than
# `opentool.ANSWER_WAIT`, so that it is the tool that says why it gave up.
LOCK_WAIT: Final = 6
_ARGUMENTS: Final = ("--noflush", "-v", "-w", str(LOCK_WAIT))
DIALECT: Final = Dialect(
    open=_ARGUMENTS, once=_ARGUMENTS, header="*filter\n", joint="\n", footer="\nCOMMIT\n",
    asks="#", answers_on=1,
)


def restorer(reactor: IProcessReactor, tool: Path) -> OpenTool:
    """One iptables-restore, for one family's filter table."""
    return OpenTool(reactor, tool, DIALECT)
