"""Whether the kernel still holds what we know it to: as long as only we have changed its rules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager


class Certainty:
    """Our own count of transactions beside the kernel's, `generation`; without one, all is doubt.

    What the tool says that it has done is not believed for longer than `trust` seconds.
    """

    def __init__(
        self, generation: Callable[[], int | None], now: Callable[[], float], trust: float
    ) -> None:
        self._generation = generation
        self._now = now
        self._trust = trust
        self._read_at = now()
        # The generation in which the kernel holds what we know it to; None when that is not sure.
        self._known: int | None = None

    @property
    def undisturbed(self) -> bool:
        """Whether nobody but us has changed any rules since all was known."""
        return self._known is not None and self._known == self._generation()

    @property
    def suffices(self) -> bool:
        """Whether that can be taken for a look at the rules."""
        return self.undisturbed and self._now() < self._read_at + self._trust

    async def read(self, show: Callable[[], Awaitable[bytes]]) -> tuple[bytes, int | None]:
        """What `show` shows, and the generation that it is of, if that is certain."""
        self._known = None
        before = self._generation()
        output = await show()
        self._read_at = self._now()
        return output, before if before == self._generation() else None

    def know(self, generation: int | None) -> None:
        """The rules of that generation are known."""
        self._known = generation

    @contextmanager
    def writing(self) -> Iterator[None]:
        """One transaction of ours; should it fail, nothing is certain."""
        known, self._known = self._known, None
        yield
        self._known = None if known is None else known + 1
