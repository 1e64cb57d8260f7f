"""What the collector looks at while the service runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from envelope.runtime.collector import COUNT_EVERY, PER_SESSION, SLACK, Collector


class FakeCollector:
    """Counts what it is told to do; `objects` are not frozen yet."""

    def __init__(self) -> None:
        self.callbacks: list[Any] = []
        self.objects = 1000
        self.frozen = 0
        self.done: list[str] = []

    def collect(self) -> int:
        self.done.append("collect")
        return 0

    def freeze(self) -> None:
        self.done.append("freeze")
        self.frozen, self.objects = self.frozen + self.objects, 0

    def unfreeze(self) -> None:
        self.done.append("unfreeze")
        self.frozen, self.objects = 0, self.frozen

    def get_freeze_count(self) -> int:
        return self.frozen

    def collected(self, generation: int) -> None:
        """The collector has gone through a generation."""
        for phase in ("start", "stop"):
            for callback in self.callbacks:
                callback(phase, {"generation": generation})


class World:
    """A collector of the fake kind, and a number of sessions."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.system = FakeCollector()
        self.sessions = 0
        self.collector = Collector(self.clock, lambda: self.sessions, self.system)
        self.collector.start()
        self.system.done.clear()


def test_objects_that_survived_twice_are_not_examined_again() -> None:
    """After the youngest generation alone it may still go."""
    world = World()
    world.system.objects = 500
    world.system.collected(0)
    assert world.system.done == []
    world.system.collected(1)
    assert world.system.done == ["freeze"]
    assert world.system.frozen == 1500


def test_objects_of_sessions_are_expected() -> None:
    world = World()
    world.sessions = 100
    world.system.frozen += 100 * PER_SESSION + SLACK
    world.clock.advance(COUNT_EVERY)
    assert world.system.done == []


def test_more_objects_than_expected_are_examined_once() -> None:
    """If it is needed after all, it is normal from then on."""
    world = World()
    world.system.frozen += SLACK + 1
    world.clock.advance(COUNT_EVERY)
    assert world.system.done == ["unfreeze", "collect", "freeze"]
    world.clock.advance(COUNT_EVERY)
    assert world.system.done == ["unfreeze", "collect", "freeze"]


def test_stop_restores_the_collector() -> None:
    world = World()
    world.collector.stop()
    assert world.system.callbacks == []
    assert world.system.frozen == 0
    assert world.clock.getDelayedCalls() == []
    world.collector.stop()


class Node:
    """Something that can refer to itself."""

    it: Any = None


@pytest.fixture
def _running() -> Iterator[None]:
    collector = Collector(Clock(), lambda: 0)
    collector.start()
    yield
    collector.stop()


@pytest.mark.usefixtures("_running")
def test_pythons_own_collector_examines_the_young_alone() -> None:
    """Thousands of objects that stay are not in any generation; circles among the new are found."""
    kept = [Node() for _ in range(50_000)]
    circle = Node()
    circle.it = circle
    del circle
    before = gc.get_stats()[2]["collections"]
    collected = sum(stats["collected"] for stats in gc.get_stats())
    for _ in range(20):
        kept += [Node() for _ in range(5_000)]
    assert gc.get_stats()[2]["collections"] == before
    assert sum(stats["collected"] for stats in gc.get_stats()) > collected
    assert gc.get_freeze_count() > 100_000
    assert len(gc.get_objects()) < 50_000
