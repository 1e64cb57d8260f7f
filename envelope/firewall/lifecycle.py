"""Installs and removes the structure of a table, in the same way for every backend.

A start reads the kernel, writes the whole structure in one transaction and reads it back; if any
of that fails, it takes back what it wrote. A stop takes everything of ours away, or leaves the
default drop (`--on-stop=keep`). The backend makes the lines of these transactions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from twisted.logger import Logger

from envelope.firewall import FirewallError
from envelope.firewall.errors import ToolFailed, ToolTimeout, UnreadableRules
from envelope.firewall.kernel import ANSWER_WAIT, Outcome, TableLabel
from envelope.firewall.metrics import FirewallMetrics
from envelope.firewall.opentool import OpenTool
from envelope.firewall.policy import RuleChoices

S = TypeVar("S")

_UNINSTALL_ATTEMPTS: Final = 3

_log = Logger(namespace="envelope.firewall")


class InstalledTable(ABC, Generic[S]):
    """A table of the kernel whose structure is installed and uninstalled; `S` is what a read finds.

    `label` is its name in the metrics, `name` in messages.
    """

    def __init__(
        self, label: TableLabel, name: str, writer: OpenTool, metrics: FirewallMetrics
    ) -> None:
        self.label = label
        self._name = name
        self._writer = writer
        self._metrics = metrics
        self._installed = False
        self.was_loose = False
        # Why rules may have stayed in force after a start that failed.
        self._left = ""

    async def marks_loose(self) -> bool:
        """Whether the rules remember that nf_conntrack_tcp_loose was 1; raise `FirewallError`.

        Rules that cannot be read are the start's to tell: only a tool that hangs fails here.
        """
        try:
            return self._marks_loose(await self._read_first())
        except ToolTimeout as error:
            raise FirewallError(f"{self._name}: {error}") from None
        except (ToolFailed, UnreadableRules):
            return False

    async def install(self, choices: RuleChoices, loose: bool) -> None:
        """Put the structure in force; raise `FirewallError`, and then nothing is changed.

        With `loose`, the rules remember that nf_conntrack_tcp_loose was 1, as they do if they did
        so before; `was_loose` tells whether they do.
        """
        try:
            await self._writer.probe()
            self._found = await self._read_first()
            self.was_loose = loose or self._marks_loose(self._found)
            lines = self._first_lines(self._found, choices, self.was_loose)
            try:
                await self._apply(lines)
                await self._confirm()
            except BaseException:
                await self._take_back()
                raise
        except (ToolFailed, UnreadableRules, FirewallError) as error:
            await self._writer.stop()
            raise FirewallError(f"{self._name}: {error}") from None
        except BaseException:
            await self._writer.stop()
            raise
        self._installed = True

    async def forget(self) -> None:
        """Remember no longer that nf_conntrack_tcp_loose was 1; raise `FirewallError`."""
        if self.was_loose:
            self.was_loose = False
            try:
                await self._apply(self._forget_lines())
            except ToolFailed as error:
                raise FirewallError(f"{self._name}: {error}") from None

    async def abandon(self) -> None:
        """Take an installed structure back, because the start failed elsewhere."""
        self._installed = False
        await self._take_back()
        await self._writer.stop()

    async def uninstall(self) -> None:
        """Take everything of ours away, or all but the default drop; raise `FirewallError`."""
        installed, self._installed = self._installed, False
        problem, self._left = self._left, ""
        if installed:
            problem = await self._take_away()
        await self._writer.stop()
        if problem:
            raise FirewallError(f"{self._name}: the rules are still in force: {problem}")

    async def _take_back(self) -> None:
        """Undo the start; what a killed service left stays for the next start to clear."""
        if self._undo(self._found):
            self._left = "a killed service left them"
            return
        try:
            now = await self._read()
            if not await self._remove_whole(now, self._found):
                await self._apply(self._undo(now))
        except (ToolFailed, UnreadableRules) as error:
            self._left = str(error)
            _log.error("{table}: rules may be left over: {error}",
                       table=self._name, error=self._left)

    async def _take_away(self) -> str:
        """Remove the structure; return "", or why that failed, after several attempts.

        If the kernel cannot be read, the rules are removed as they were written.
        """
        problem = ""
        for _attempt in range(_UNINSTALL_ATTEMPTS):
            try:
                try:
                    now = await self._read()
                except (ToolFailed, UnreadableRules) as error:
                    _log.warn("{table}: {error}; removing the rules as they were written",
                              table=self._name, error=str(error))
                    now = self._as_written()
                if not await self._remove_whole(now, None):
                    await self._apply(self._last_lines(now))
            except (ToolFailed, UnreadableRules) as error:
                problem = str(error)
            else:
                return ""
        return problem

    async def _apply(self, lines: Sequence[str], patience: float = ANSWER_WAIT) -> None:
        """Apply `lines`, if there are any, as one transaction, and count how it ended."""
        if not lines:
            return
        outcome = Outcome.OK
        try:
            await self._write_lines(lines, patience)
        except ToolTimeout:
            outcome = Outcome.TIMEOUT
            raise
        except ToolFailed:
            outcome = Outcome.FAILED
            raise
        finally:
            self._metrics.transaction(self.label, outcome)

    async def _write_lines(self, lines: Sequence[str], patience: float) -> None:
        await self._writer.apply(lines, patience)

    async def _remove_whole(self, now: S, found: S | None) -> bool:  # noqa: ARG002
        """Remove the whole table at once, if that is right; whether it was done.

        `found` is what the start had found, or None at a stop.
        """
        return False

    @abstractmethod
    async def _read(self) -> S:
        """Read the kernel; raise `ToolFailed` or `UnreadableRules`."""

    async def _read_first(self) -> S:
        """Read the kernel before the start."""
        return await self._read()

    @abstractmethod
    def _first_lines(self, found: S, choices: RuleChoices, loose: bool) -> list[str]:
        """Choose the structure, and return the lines that put it in force.

        With `loose`, it remembers that nf_conntrack_tcp_loose was 1.

        Raises `FirewallError` when what is `found` must not be touched.
        """

    @abstractmethod
    def _marks_loose(self, found: S) -> bool:
        """Whether what is found remembers that nf_conntrack_tcp_loose was 1."""

    @abstractmethod
    def _forget_lines(self) -> list[str]:
        """Choose the structure that does not remember it, and return the lines to that."""

    @abstractmethod
    async def _confirm(self) -> None:
        """Raise `UnreadableRules` unless the structure stands as written."""

    @abstractmethod
    def _as_written(self) -> S:
        """What a read would find if nobody had changed the structure; no grants.

        Raises `UnreadableRules` when the lines of a stop need more than that.
        """

    @abstractmethod
    def _undo(self, now: S) -> list[str]:
        """The lines that take everything of ours away; none when there is nothing of ours."""

    @abstractmethod
    def _last_lines(self, now: S) -> list[str]:
        """The lines of a stop: everything of ours goes, or all but the default drop."""
