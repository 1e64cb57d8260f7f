"""Rules of ours in the tables of other backends, which a start with this one has to clear.

They are there when a service was killed, or stopped with `--on-stop=keep`, and the next one uses
another backend, such as when an update changes what `iptables` is. Their default drop would refuse
clients that this service lets in. They are removed once our own rules are in force, so that no
moment is more open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from twisted.logger import Logger

from envelope.firewall.errors import ToolFailed, UnreadableRules
from envelope.text import printable

_log = Logger(namespace="envelope.firewall")


class OtherTable(Protocol):
    """A table that another backend writes; both methods raise `ToolFailed` or `UnreadableRules`."""

    @property
    def name(self) -> str:
        """The table's name in messages."""

    was_loose: bool

    async def find(self) -> str:
        """The command that removes our rules from it, or "" when there are none.

        Afterwards `was_loose` tells whether they remember that nf_conntrack_tcp_loose was 1.
        """

    async def clear(self) -> None:
        """Remove our rules, and restore what was before them, in one transaction."""


class Leftovers:
    """Our rules in `tables`: `find` is called before a start's rules are installed, `clear` after.

    What could not be removed is among `problems`, and the next `clear` tries again.
    """

    def __init__(self, tables: Sequence[OtherTable]) -> None:
        self._tables = tables
        # The tables with rules of ours, each with the command that removes them.
        self._left: list[tuple[OtherTable, str]] = []
        self._unread: list[str] = []
        self._clearing = False
        self.problems: list[str] = []

    async def find(self) -> bool:
        """Look for rules of ours; whether some remember that nf_conntrack_tcp_loose was 1."""
        self._left, self._unread = [], []
        for table in self._tables:
            try:
                if command := await table.find():
                    self._left.append((table, printable(command)))
            except (ToolFailed, UnreadableRules) as error:
                # Logged later: a start that fails says no more than why.
                self._unread.append(f"{table.name}: {error}")
        return any(table.was_loose for table, _ in self._left)

    async def clear(self) -> None:
        """Remove what `find` has found; never fails."""
        if self._clearing:
            return
        self._clearing = True
        for line in self._unread:
            _log.warn("rules that another firewall backend may have left cannot be looked for in "
                      "{line}", line=line)
        self._unread = []
        problems = []
        left, self._left = self._left, []
        for table, command in left:
            try:
                await table.clear()
            except (ToolFailed, UnreadableRules) as error:
                self._left.append((table, command))
                problems.append(
                    f"{table.name}: rules that a service with another firewall backend left may "
                    f"refuse clients and cannot be removed ({error}); this removes them: {command}"
                )
            else:
                _log.info("removed the rules that a service with another firewall backend had left "
                          "in {table}", table=table.name)
        for problem in problems:
            if problem not in self.problems:
                _log.warn("{problem}", problem=problem)
        self.problems = problems
        self._clearing = False
