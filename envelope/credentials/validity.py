"""When a certificate is valid, and when the operator has to be warned. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# Automatic renewal usually happens 30 days before the end: with 14 days left it has failed.
NOTICE: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Validity:
    """The period in which a certificate is valid (RFC 5280 section 4.1.2.5), both ends included."""

    not_before: datetime
    not_after: datetime

    def trouble(self, now: datetime) -> str | None:
        """One line if clients refuse the certificate now or within `NOTICE`, else None."""
        if now > self.not_after:
            return f"the certificate expired at {utc_text(self.not_after)}: clients refuse it"
        if now < self.not_before:
            begin = utc_text(self.not_before)
            return f"the certificate is not valid before {begin}: clients refuse it"
        left = self.not_after - now
        if left < NOTICE:
            span = f"{left.days} days" if left.days > 1 else f"{left // timedelta(hours=1)} hours"
            return f"the certificate expires in {span}, at {utc_text(self.not_after)}"
        return None

    def next_change(self, now: datetime) -> timedelta:
        """How long until `trouble` has to be asked again: at least a second, at most a day."""
        ahead = (self.not_before - now, self.not_after - now)
        seconds = [each + timedelta(seconds=1) for each in ahead if each >= timedelta(0)]
        return min(timedelta(days=1), *seconds, timedelta(days=1))


def utc_text(moment: datetime) -> str:
    """A moment in UTC, as in `2026-11-25 04:00:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
