"""Runs work that is divided into steps (generators) without a reactor."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def run_steps(steps: Generator[int, None, T], sizes: list[int] | None = None) -> T:
    """Run all steps; returns the generator's result, and appends the steps' sizes to `sizes`."""
    while True:
        try:
            size = next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
        if sizes is not None:
            sizes.append(size)
