"""Measures work in function calls instead of seconds: the same on every machine."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from types import FrameType, TracebackType
from typing import Any


class CallCounter:
    """A context manager that counts calls.

    `calls` are those of Python functions, `builtin` those of C functions by name. The garbage
    collector rests meanwhile: it calls functions too, such as hypothesis' own, at any moment.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.builtin: Counter[str] = Counter()
        self._before: Any = None
        self._collects = True

    def __enter__(self) -> CallCounter:
        self._collects = gc.isenabled()
        gc.disable()
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.setprofile(self._before)
        if self._collects:
            gc.enable()

    def _count(self, frame: FrameType, event: str, what: Any) -> None:
        if event == "call":
            self.calls += 1
        elif event == "c_call":
            self.builtin[what.__name__] += 1
