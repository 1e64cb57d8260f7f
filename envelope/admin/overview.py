"""The `/status` object: what runs with which options, who is let in, and by which rules. Pure.

Its members are a promise to operators' programs; docs/operations.md lists them. No token, no key
and no secret of an option is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from envelope import __version__
from envelope.config import Config
from envelope.config.shown import shown
from envelope.credentials.inuse import CertificateInUse, KeyInUse
from envelope.firewall import RulesInForce


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The values that the object is made of; `now` and `started` are seconds since the epoch.

    `sessions` are those that are open, `slots` how many of `--max-clients` they use. `refusals` has
    the number of refused requests by reason. `reasons` are why the service is not ready, `warnings`
    what an operator should look at besides, a line each.
    """

    config: Config
    now: float
    started: float
    slots_used: int
    slots_total: int
    sessions: Sequence[Mapping[str, object]]
    refusals: Mapping[str, int]
    rules: RulesInForce
    keys: Sequence[KeyInUse]
    certificate: CertificateInUse | None
    reasons: Sequence[str]
    warnings: Sequence[str]

    def as_object(self) -> dict[str, object]:
        """The object, ready for JSON."""
        return {
            "version": __version__,
            "now": round(self.now, 3),
            "uptime": round(self.now - self.started, 3),
            "ready": not self.reasons,
            "reasons": [*self.reasons],
            "warnings": [*self.warnings],
            "slots": {"used": self.slots_used, "total": self.slots_total},
            "sessions": [*self.sessions],
            "refusals": {**self.refusals},
            "rules": {"wanted": [*self.rules.wanted], "held": [*self.rules.held]},
            "keys": [asdict(key) for key in self.keys],
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "options": shown(self.config),
        }
