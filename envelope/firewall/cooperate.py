"""Long work done in several turns of the reactor, so that clients are served in between.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

S = TypeVar("S")
T = TypeVar("T")

# How many rules, elements or networks are dealt with in one turn: some 2 ms.
SLICE: Final = 500


def slices(items: Iterable[S]) -> Iterator[list[S]]:
    """All `items` in lists of `SLICE`, the last of them shorter; of none, none at all."""
    left = iter(items)
    while part := list(islice(left, SLICE)):
        yield part


async def in_turns(
    reactor: IReactorTime, items: Iterable[S], make: Callable[[list[S]], Iterable[T]]
) -> list[T]:
    """What `make` makes of `items`, slice by slice; the first at once."""
    made: list[T] = []
    for number, part in enumerate(slices(items)):
        if number:
            await deferLater(reactor, 0)
        made += make(part)
    return made


async def step_by_step(reactor: IReactorTime, steps: Generator[int, None, T]) -> T:
    """What `steps` return in the end; each yields how many rules it has dealt with.

    A turn of the reactor passes whenever these come to a slice.
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
