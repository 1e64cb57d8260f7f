"""`--idle`: who is idle, and when sessions end for it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from envelope.firewall import GrantId, Traffic
from envelope.sessions.idle import READ_EVERY, Seen, judged
from tests.sessions.test_registry import World

IDLE = 60.0
# What successive readings show: a number of packets more, or nothing.
readings = st.lists(st.tuples(
    st.floats(0.1, 30), st.one_of(st.none(), st.just(0), st.integers(1, 5))), min_size=1)


@given(opened=st.floats(0, 1000), before=st.integers(0, 5), steps=readings)
def test_nobody_ends_before_so_long_without_a_packet(opened, before, steps) -> None:
    """Nor later than the reading after that, unless readings fail."""
    seen: Seen | None = None
    now, packets, last_packet, shown = opened, before, opened, True
    for later, more in steps:
        previous, now = now, now + later
        if more:
            packets += more
            last_packet = now
        if more is None:
            # It fails, and meanwhile anything may come in.
            seen, idle = judged(seen, None, opened, now, IDLE)
            assert not idle
            shown = False
            continue
        seen, idle = judged(seen, packets, opened, now, IDLE)
        assert not idle or now - last_packet >= IDLE
        if shown and before == 0 and previous - last_packet >= IDLE:
            assert idle
        shown = shown or bool(more)


def test_a_session_that_joins_an_idle_grant_has_its_own_time() -> None:
    """The packets of others before it do not count for it, nor against it."""
    seen, idle = judged(None, 7, 100.0, 102.0, IDLE)
    assert not idle
    assert judged(seen, 7, 100.0, 161.0, IDLE) == (seen, False)
    assert judged(seen, 7, 100.0, 162.0, IDLE) == (seen, True)


class CountingWorld(World):
    """Sessions whose firewall counts as a test says; `counts` is None while it cannot be read."""

    def __init__(self, **options: object) -> None:
        super().__init__(idle=IDLE, max_clients=2000, **options)
        self.counts: dict[GrantId, int] | None = {}
        self.readings = 0
        self.firewall.traffic = self._traffic  # type: ignore[method-assign]
        self.firewall.read_traffic = self._read  # type: ignore[method-assign]

    def _traffic(self, grant: GrantId) -> Traffic | None:
        return None if self.counts is None else Traffic(self.counts.get(grant, 0), 0, False)

    def _read(self) -> Deferred[None]:
        self.readings += 1
        return succeed(None)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.advance(1)


def test_a_session_without_traffic_ends_with_4002_and_not_much_later() -> None:
    """Both that share the grant, each in its own time; and then nothing is read any more."""
    world = CountingWorld(timeout=3600.0)
    _, first = world.admit()
    world.run(20)
    _, second = world.admit()
    world.run(IDLE - 21)
    assert first.closed == []
    world.run(2 + 2 * READ_EVERY)
    assert first.closed == [(4002, "idle")]
    assert second.closed == []
    world.run(20)
    assert second.closed == [(4002, "idle")]
    assert world.metric("envelope_session_seconds_count", end="idle") == 2
    world.clock.advance(1)
    assert world.clock.getDelayedCalls() == []


def test_a_session_with_traffic_goes_on() -> None:
    """For as long as there is any."""
    world = CountingWorld(timeout=3600.0)
    _, carrier = world.admit()
    grant = next(iter(world.firewall.grants))
    for number in range(10):
        assert world.counts is not None
        world.counts[grant] = number
        world.run(IDLE - 10)
    assert carrier.closed == []
    world.run(IDLE + 10)
    assert carrier.closed == [(4002, "idle")]


def test_what_cannot_be_read_ends_nobody() -> None:
    """Until it can be read again."""
    world = CountingWorld(timeout=3600.0)
    _, carrier = world.admit()
    world.run(20)
    world.counts = None
    world.run(300)
    assert carrier.closed == []
    world.counts = {}
    world.run(10)
    assert carrier.closed == [(4002, "idle")]


def test_nothing_is_read_unless_it_is_asked_for() -> None:
    """Without `--idle` there is no timer."""
    world = World(timeout=3600.0)
    world.admit()
    assert [call.getTime() for call in world.clock.getDelayedCalls()] == [3600.0]
