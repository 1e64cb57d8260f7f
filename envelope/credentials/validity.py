"""When a certificate is good, and what an operator should hear of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

# Certificates that renew themselves do so a month ahead; two weeks say that it has not worked.
NOTICE: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid (RFC 5280 section 4.1.2.5), both inclusive."""

    not_before: datetime
    not_after: datetime

    def trouble(self, now: datetime) -> str | None:
        """One line when clients refuse the certificate or soon will, else None."""
        if now > self.not_after:
            return f"the certificate expired at {shown(self.not_after)}: clients refuse it"
        if now < self.not_before:
            begin = shown(self.not_before)
            return f"the certificate is not valid before {begin}: clients refuse it"
        left = self.not_after - now
        if left < NOTICE:
            span = f"{left.days} days" if left.days > 1 else f"{left // timedelta(hours=1)} hours"
            return f"the certificate expires in {span}, at {shown(self.not_after)}"
        return None

    def next_change(self, now: datetime) -> timedelta:
        """How long until `trouble` may say something graver; at most a day, at least a second."""
        ahead = (self.not_before - now, self.not_after - now)
        seconds = [each + timedelta(seconds=1) for each in ahead if each >= timedelta(0)]
        return min(timedelta(days=1), *seconds, timedelta(days=1))


def shown(moment: datetime) -> str:
    """A moment in UTC, as in `2026-11-25 04:00:00 UTC`."""
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
