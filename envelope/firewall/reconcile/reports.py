"""What operators are told of one table: what the tool refuses, and what others changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from twisted.logger import Logger

from envelope.firewall.kernel import DriftKind
from envelope.firewall.reconcile.contest import LONGEST_PAUSE
from envelope.text import printable

_log = Logger(namespace="envelope.firewall")

# Rules of others that are reported one by one.
_MOST_LINES: Final = 5


class Reports:
    """Logs each trouble and each difference once; `drift` counts differences by kind.

    `trouble` is what the tool refused last, while anything is still refused.
    """

    def __init__(self, label: str, drift: Callable[[DriftKind, int], None]) -> None:
        self._label = label
        self._drift = drift
        self.trouble: str | None = None
        # Whether others keep putting rules before ours; each move is then counted and not logged.
        self._contested = False
        # Rules of others in our chains that can let packets in.
        self._openings: tuple[str, ...] = ()
        # Differences that were logged and are not mended yet, by kind.
        self._logged: Counter[DriftKind] = Counter()

    def refused(self, error: str) -> None:
        """The tool refused something; `error` is one line."""
        if error != self.trouble:
            _log.error("{table}: {error}", event="firewall-trouble", table=self._label,
                       error=error)
        self.trouble = error

    def well(self) -> None:
        """Nothing is refused any more."""
        if self.trouble is not None:
            _log.info("{table}: the rules hold again", event="firewall-well",
                      table=self._label)
        self.trouble = None

    def differs(self, kinds: Iterable[DriftKind], grants: int = 0, networks: int = 0) -> None:
        """Differences were found; each counts once, however often it is seen.

        `kinds` are those of the structure, one for each. The grants of so many `networks` differ,
        of which `grants` were missing or different, and the others were of nobody who was let in.
        """
        found = Counter(kinds)
        found += Counter({DriftKind.GRANT: grants, DriftKind.STRAY: networks - grants})
        news = found - self._logged
        self._logged |= found
        for kind, number in news.items():
            self._drift(kind, number)
        if news.keys() - ({DriftKind.JUMP} if self._contested else set()):
            _log.warn(
                "{table}: others changed the rules ({kinds}); repairing them",
                event="drift", table=self._label, kinds=", ".join(sorted(news)),
            )

    def problem(self, revoking: int) -> str | None:
        """The trouble in one line, with how many revocations wait; None when there is none."""
        if self.trouble is None:
            return None
        waiting = f" ({revoking} revocations outstanding)" if revoking else ""
        return f"firewall {self._label}: {self.trouble}{waiting}"

    def contested(self, contested: bool) -> None:
        """Whether our jump is moved back only after pauses, since others keep moving it."""
        if contested and not self._contested:
            _log.warn("{warning}", warning=self._contest)
        if self._contested and not contested:
            _log.info("{table}: the rules keep their place again", table=self._label)
        self._contested = contested

    def opened(self, openings: Sequence[str]) -> None:
        """Others have put these rules in our chains, which can let packets in."""
        new = [each for each in openings if each not in self._openings]
        self._openings = tuple(openings)
        for each in new[:_MOST_LINES]:
            _log.warn("{warning}", warning=self._opening(each))

    @property
    def warnings(self) -> list[str]:
        """What an operator should look after although nothing is refused, a line each."""
        contest = [self._contest] if self._contested else []
        return contest + [self._opening(each) for each in self._openings[:_MOST_LINES]]

    def _opening(self, rule: str) -> str:
        shown = printable(rule)
        return f"firewall {self._label}: a rule of others can let packets in past ours: {shown}"

    @property
    def _contest(self) -> str:
        return (
            f"firewall {self._label}: others keep putting rules that accept before ours in INPUT, "
            f"which let in what they accept; ours are moved back after pauses of up to "
            f"{LONGEST_PAUSE:g} s"
        )

    def mended(self) -> None:
        """All differences that were found are mended."""
        self._logged.clear()
