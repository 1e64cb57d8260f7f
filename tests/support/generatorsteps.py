"""CallCounter that is done in steps, done without a reactor."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def run_steps(steps: Generator[int, None, T], sizes: list[int] | None = None) -> T:
    """What they come to; how large they were is added to `sizes`."""
    while True:
        try:
            size = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if sizes is not None:
            sizes.append(size)
