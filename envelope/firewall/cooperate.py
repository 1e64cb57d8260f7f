"""Long work done in several turns of the reactor, so that clients are served in between."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

S = TypeVar("S")
T = TypeVar("T")

# How many rules, elements or networks one turn of the reactor deals with: some 2 ms.
SLICE: Final = 500


def slices(items: Iterable[S], size: int = SLICE) -> Iterator[list[S]]:
    """Cut `items` into lists of `size`; the last may be shorter."""
    left = iter(items)
    while part := list(islice(left, size)):
        yield part


async def wait_turns(reactor: IReactorTime, number: int, seconds: float) -> None:
    """Let the reactor have `number` turns, or fewer once they have taken `seconds`.

    The first is over when the turn under way is: timers that are due run before the reactor waits.
    """
    until = reactor.seconds() + seconds
    for _ in range(number):
        await deferLater(reactor, 0)
        if reactor.seconds() >= until:
            return


async def in_turns(
    reactor: IReactorTime, items: Iterable[S], make: Callable[[list[S]], Iterable[T]],
    size: int = SLICE,
) -> list[T]:
    """Call `make` with `items` slice by slice, one in each turn, and return all results."""
    left = iter(items)
    made = [*make([*islice(left, size)])]
    while part := [*islice(left, size)]:
        await deferLater(reactor, 0)
        made += make(part)
    return made


async def step_by_step(reactor: IReactorTime, steps: Generator[int, None, T]) -> T:
    """Run `steps` to the end and return its result.

    Each step yields how many rules it has dealt with; after each slice of them the reactor has a
    turn.
    """
    done = 0
    while True:
        try:
            done += next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if done >= SLICE:
            done = 0
            await deferLater(reactor, 0)
