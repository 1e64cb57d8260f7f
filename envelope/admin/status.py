"""Collects what the `/status` object shows from the parts of the running service."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from envelope.admin.overview import Overview
from envelope.config import Config
from envelope.credentials.current import Credentials
from envelope.firewall import IFirewall
from envelope.sessions.metrics import SessionMetrics
from envelope.sessions.registry import Sessions
from envelope.sessions.view import SessionView


@dataclass(frozen=True, slots=True)
class Status:
    """The state of one service, asked for anew at each call of `overview`.

    `reasons` and `warnings` are those of `/readyz`. `wall` returns seconds since the epoch.
    """

    config: Config
    sessions: Sessions
    metrics: SessionMetrics
    firewall: IFirewall
    credentials: Credentials
    reasons: Callable[[], list[str]]
    warnings: Callable[[], list[str]]
    wall: Callable[[], float] = time.time
    started: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "started", self.wall())

    def overview(self) -> Overview:
        """What holds now."""
        return Overview(
            config=self.config,
            now=self.wall(),
            started=self.started,
            slots_used=self.sessions.slots.used,
            slots_total=self.sessions.slots.total,
            sessions=[*map(_session, self.sessions.views())],
            refusals=self.metrics.refusals,
            rules=self.firewall.rules(),
            keys=self.credentials.keys_in_use(),
            certificate=self.credentials.certificate_in_use(),
            reasons=self.reasons(),
            warnings=self.warnings(),
        )


def _session(view: SessionView) -> dict[str, object]:
    return {
        "id": view.id,
        "address": None if view.address is None else str(view.address),
        "network": None if view.network is None else str(view.network),
        "subject": view.subject,
        "since": round(view.since, 3),
        "until": round(view.until, 3),
        "packets": view.packets,
        "bytes": view.bytes,
        "claims": {**view.claims},
    }
