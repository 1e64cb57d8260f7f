"""When iptables-legacy is read before rules are deleted, since the kernel tells nothing."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from envelope.firewall import Traffic
from envelope.firewall.errors import ToolFailed
from envelope.firewall.iptables.counters import RuleCounters
from envelope.firewall.iptables.counting import AT_ONCE, FEW, SHARE, Counting
from envelope.firewall.kernel import Key
from envelope.firewall.policy import IPV4

A = Key("203.0.113.7/32")
# What a reading takes (seconds); a power of two, so that sums are exact.
READING = 2**-4
SAVED = b"[3:180] -A ENVELOPE-GRANTS -s 203.0.113.7/32 -j ENVELOPE-END-20261129T002440\n"


class Legacy:
    """The tools; reading takes `READING`, and fails while `fails`."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.fails = False
        tools: Any = self
        self.counting = Counting(tools, IPV4, RuleCounters(4))

    async def save(self, counters: bool) -> bytes:
        assert counters
        self.reactor.advance(READING)
        if self.fails:
            raise ToolFailed("refused by the test")
        return SAVED

    def leave(self, *keys: Key) -> list[tuple[Key, Traffic]]:
        """These grants end; what is told of their counts."""
        before = Deferred.fromCoroutine(self.counting.before(keys))
        while not before.called:
            self.reactor.advance(0)
        self.counting.after()
        return [*self.counting.deleted()]


def test_grants_that_end_one_soon_after_the_other_are_read_each() -> None:
    legacy = Legacy()
    while legacy.reactor.seconds() < AT_ONCE:
        [(key, counted)] = legacy.leave(A)
        assert (key, counted.packets, counted.bytes) == (A, 3, 180)


def test_where_many_leave_readings_take_their_share_of_the_time() -> None:
    """Also readings that fail."""
    legacy = Legacy()
    legacy.fails = True
    while legacy.reactor.seconds() < AT_ONCE:
        assert legacy.leave(A) == []
    legacy.fails = False
    read = 0
    while legacy.reactor.seconds() < 100:
        read += len(legacy.leave(A))
        legacy.reactor.advance(READING)
    assert read * READING <= 100 * SHARE < (read + 1) * READING


def test_many_that_end_at_once_are_not_read() -> None:
    legacy = Legacy()
    assert legacy.leave(*(Key(f"198.51.100.{n}/32") for n in range(FEW)), A) == []
    assert legacy.leave() == []
    assert legacy.reactor.seconds() == 0
