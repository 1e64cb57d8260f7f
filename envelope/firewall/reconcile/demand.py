"""What callers want of one table: the wish, the change that is due for it, and the answer owed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from envelope.firewall.kernel import KernelTable, Key, Rules
from envelope.firewall.reconcile.backlog import Backlog
from envelope.firewall.reconcile.waiters import Answers
from envelope.firewall.reconcile.wanted import Wishes


class Demand:
    """Keeps wishes, backlog and answers in step.

    `too_late` is told of a network whose grant has been waited for long enough.
    """

    def __init__(
        self, reactor: IReactorTime, table: KernelTable, too_late: Callable[[Key], None]
    ) -> None:
        self.wishes = Wishes(table)
        self.backlog = Backlog()
        self.answers = Answers(reactor, too_late)

    def allow(self, key: Key, end: int) -> Deferred[None]:
        """Want a network let in until `end` (seconds since the epoch); see `IFirewall.allow`."""
        self._change(self.wishes.allow(key, end))
        answer = self.answers.await_allowed(key)
        self.answers.revoked(key)
        return answer

    def revoke(self, key: Key) -> Deferred[None]:
        """Want a network shut out; see `IFirewall.revoke`."""
        answer = self.answers.await_revoked(key)
        self._change(self.wishes.revoke(key))
        self.answers.refused(key, "the grant was revoked before it was in force")
        return answer

    def move(self, by: int) -> None:
        """Move every grant's end by so many seconds."""
        self._change(self.wishes.move(by))

    def refuse(self, key: Key, why: str) -> None:
        """Refuse a grant that cannot be made; one that was granted before keeps its older end.

        If it was to end earlier, it is tried again until it does.
        """
        if self.answers.is_allowing(key):
            self._change(self.wishes.fall_back(key))
            self.answers.refused(key, why)

    def is_met(self, key: Key, rules: Rules) -> bool:
        """Whether `rules` are what is wanted for a network."""
        return rules == self.wishes.get(key)

    def met(self, key: Key) -> None:
        """Answer those who wait for a network whose rules are now in force as wanted."""
        if self.wishes.fulfilled(key):
            self.answers.allowed(key)
        else:
            self.answers.revoked(key)

    def dismiss(self) -> None:
        """Answer everybody who still waits: every grant is gone."""
        for key in self.answers.allowing:
            self.answers.refused(key, "the firewall was closed")
        for key in self.answers.revoking:
            self.answers.revoked(key)

    def _change(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self.backlog.add(key)
