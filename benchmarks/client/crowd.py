"""Many clients at once, each from its own address."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from benchmarks.client.visitor import Visitor, tls_context

# A run without any event for so long (seconds) counts as stuck.
PATIENCE = 30.0


@dataclass
class Tally:
    """Figures of a run. `connect`: ms from connecting to 101; `leave`: ms from close to its answer.

    `faults` counts errors by text; `seconds` and `cpu` (of the clients) are of the whole run.
    """

    connect: list[float] = field(default_factory=list)
    leave: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """The figures as JSON for the driver."""
        return {
            "connect": [round(value, 3) for value in self.connect],
            "leave": [round(value, 3) for value in self.leave],
            "faults": dict(self.faults), "seconds": self.seconds, "client_cpu": self.cpu,
        }


def addresses() -> Iterator[str]:
    """The addresses of 10.9.0.0/16 except those that end in 0 or 255, repeated without end."""
    return cycle(f"10.9.{high}.{low}" for high in range(256) for low in range(1, 255))


class Crowd:
    """The clients of one service."""

    def __init__(self, target: tuple[str, int], tokens: list[str]) -> None:
        self._target = target
        self._tokens = cycle(tokens)
        self._sources = addresses()
        self._epoll = select.epoll()
        self._context = tls_context()
        self._visitors: dict[int, Visitor] = {}
        self._tally = Tally()
        self.held: set[Visitor] = set()

    def visits(self, count: int, at_once: int, pause: float = 0.0) -> Tally:
        """Make `count` visits, `at_once` at a time; each client leaves as soon as it is let in.

        With one at a time, `pause` is the number of seconds before each visit.
        """
        left = count

        def come() -> None:
            nonlocal left
            if left:
                left -= 1
                time.sleep(pause)
                self._start(next_step)

        def next_step(visitor: Visitor) -> None:
            if visitor.is_open:
                self._note_open(visitor)
                visitor.leave()
            else:
                self._note_end(visitor)
                come()

        return self._run(lambda: [come() for _ in range(at_once)])

    def schedule(self, rate: float, seconds: float) -> Tally:
        """Let clients connect at a fixed rate, and leave as soon as they are let in.

        `connect` counts from the moment at which the schedule wanted a client to connect.
        """
        count = round(rate * seconds)
        wanted: dict[Visitor, float] = {}
        began = time.perf_counter()

        def next_step(visitor: Visitor) -> None:
            if visitor.is_open:
                self._tally.connect.append((visitor.opened - wanted[visitor]) * 1000)
                visitor.leave()
            else:
                wanted.pop(visitor)
                self._note_end(visitor)

        def start_due() -> float:
            """Start those that are due; the seconds until the next one is."""
            nonlocal count_started
            now = time.perf_counter() - began
            while count_started < count and count_started / rate <= now:
                visitor = self._start(next_step)
                wanted[visitor] = began + count_started / rate
                count_started += 1
            return max(0.0, count_started / rate - now) if count_started < count else PATIENCE

        count_started = 0
        tally = self._tally = Tally()
        while count_started < count or len(self._visitors) > len(self.held):
            wait = start_due()
            events = self._epoll.poll(wait, 256)
            if not events and wait == PATIENCE:
                tally.faults["stuck"] += len(self._visitors) - len(self.held)
                break
            self._handle(events)
        tally.seconds = time.perf_counter() - began
        return tally

    def hold(self, count: int, at_once: int) -> Tally:
        """Let `count` clients connect, `at_once` at a time, and stay."""
        left = count

        def come() -> None:
            nonlocal left
            if left:
                left -= 1
                self._start(next_step)

        def next_step(visitor: Visitor) -> None:
            if visitor.is_open:
                self._note_open(visitor)
                self.held.add(visitor)
                come()
            elif visitor in self.held:
                self.held.discard(visitor)
                self._note_end(visitor)
            else:
                self._note_end(visitor)
                come()

        return self._run(lambda: [come() for _ in range(at_once)])

    def leave(self) -> Tally:
        """Let all clients that stayed leave at once."""

        def leave_all() -> None:
            going = list(self.held)
            self.held.clear()
            for visitor in going:
                visitor.leave()

        return self._run(leave_all)

    def enter(self) -> Visitor:
        """Let one client connect; returns it once it is let in. Raises `RuntimeError`."""
        self._tally = Tally()
        visitor = self._start(lambda _: None)
        self._turn_until(lambda: visitor.is_open or bool(visitor.fault))
        if visitor.fault:
            raise RuntimeError(visitor.fault)
        return visitor

    def see_off(self, visitor: Visitor) -> None:
        """Wait until the close frame of a leaving client is answered."""
        self._turn_until(lambda: not visitor.is_open)

    def _start(self, on_step: Callable[[Visitor], None]) -> Visitor:
        def and_forget(visitor: Visitor) -> None:
            if not visitor.is_open:
                del self._visitors[visitor.fd]
            on_step(visitor)

        visitor = Visitor(self._epoll, self._context, next(self._tokens), and_forget)
        self._visitors[visitor.start(next(self._sources), self._target)] = visitor
        return visitor

    def _note_open(self, visitor: Visitor) -> None:
        self._tally.connect.append((visitor.opened - visitor.began) * 1000)

    def _note_end(self, visitor: Visitor) -> None:
        if visitor.fault:
            self._tally.faults[visitor.fault] += 1
        elif visitor.left:
            self._tally.leave.append((visitor.ended - visitor.left) * 1000)

    def _run(self, begin: Callable[[], object]) -> Tally:
        tally = self._tally = Tally()
        cpu, began = time.process_time(), time.perf_counter()
        begin()
        self._turn_until(lambda: len(self._visitors) <= len(self.held))
        tally.seconds = time.perf_counter() - began
        tally.cpu = time.process_time() - cpu
        return tally

    def _turn_until(self, done: Callable[[], bool]) -> None:
        while not done():
            events = self._epoll.poll(PATIENCE, 256)
            if not events:
                self._tally.faults["stuck"] += len(self._visitors) - len(self.held)
                return
            self._handle(events)

    def _handle(self, events: list[tuple[int, int]]) -> None:
        for fd, _ in events:
            visitor = self._visitors.get(fd)
            if visitor is not None:
                visitor.ready()
