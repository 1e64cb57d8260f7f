"""The `/status` object: what runs with which options, who is let in, and by which rules. Pure.

Its members are a promise to operators' programs; docs/operations.md lists them. No token, no key
and no secret of an option is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

from envelope import __version__
from envelope.addresses import Address, Network
from envelope.admin.history import History
from envelope.config import Config
from envelope.config.shown import shown
from envelope.credentials.inuse import CertificateInUse, KeyInUse
from envelope.firewall import RulesInForce
from envelope.sessions.view import SessionView, Slots


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The values that the object is made of; `now` is in seconds since the epoch.

    `uptime` is the service's age in seconds, whatever was done to the wall clock meanwhile.
    `sessions` are those that are open. `refusals` has the number of refused requests by reason.
    `reasons` are why the service is not ready, `warnings` what an operator should look at besides.
    `rate` is what `--tx-device` sends now, in bits per second, and None without that option.
    """

    config: Config
    now: float
    uptime: float
    slots: Slots
    sessions: Sequence[SessionView]
    refusals: Mapping[str, int]
    rules: RulesInForce
    keys: Sequence[KeyInUse]
    certificate: CertificateInUse | None
    reasons: Sequence[str]
    warnings: Sequence[str]
    history: History
    rate: float | None

    def as_object(self) -> dict[str, object]:
        """The object, ready for JSON."""
        return {
            "version": __version__,
            "now": round(self.now, 3),
            "uptime": round(self.uptime, 3),
            "ready": not self.reasons,
            "reasons": [*self.reasons],
            "warnings": [*self.warnings],
            "slots": asdict(self.slots),
            "sessions": [*map(_session, self.sessions)],
            "refusals": {**self.refusals},
            "rules": {"wanted": [*self.rules.wanted], "held": [*self.rules.held]},
            "keys": [asdict(key) for key in self.keys],
            "certificate": None if self.certificate is None else asdict(self.certificate),
            "tx_bits_per_second": None if self.rate is None else round(self.rate),
            "history": self.history.as_object(),
            "options": shown(self.config),
        }


@lru_cache(maxsize=1 << 14)
def _text(address: Address | Network | None) -> str | None:
    # ipaddress takes 2 to 8 us each time, and the stream shows the same ones every second.
    return None if address is None else str(address)


def _session(view: SessionView) -> dict[str, object]:
    return {
        "id": view.id,
        "address": _text(view.address),
        "network": _text(view.network),
        "subject": view.subject,
        "since": round(view.since, 3),
        "until": round(view.until, 3),
        "packets": view.packets,
        "bytes": view.bytes,
        "claims": {**view.claims},
    }
