"""What operators are told of one table: what the tool refuses, and what others have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from twisted.logger import Logger

from envelope.firewall.kernel import DriftKind

_log = Logger(namespace="envelope.firewall")


class Condition:
    """Tells of each trouble and each difference once; `drift` counts them by kind.

    `trouble` is what the tool last refused, as long as anything is still refused.
    """

    def __init__(self, label: str, drift: Callable[[DriftKind, int], None]) -> None:
        self._label = label
        self._drift = drift
        self.trouble: str | None = None
        # Differences that were told of and are not mended yet, by kind.
        self._told: Counter[DriftKind] = Counter()

    def refused(self, error: str) -> None:
        """The tool has refused something; `error` is one line."""
        if error != self.trouble:
            _log.error("{table}: {error}", table=self._label, error=error)
        self.trouble = error

    def well(self) -> None:
        """Nothing is refused any more."""
        if self.trouble is not None:
            _log.info("{table}: the rules hold again", table=self._label)
        self.trouble = None

    def differs(self, kinds: Counter[DriftKind]) -> None:
        """So many differences of these kinds are there; told once however long mending takes."""
        news = kinds - self._told
        self._told |= kinds
        for kind, number in news.items():
            self._drift(kind, number)
        if news:
            _log.warn(
                "{table}: somebody changed the rules ({kinds}); mending",
                table=self._label, kinds=", ".join(sorted(news)),
            )

    def mended(self) -> None:
        """What differed does no more."""
        self._told.clear()
