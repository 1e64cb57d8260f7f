"""What a service tells its operators, as a test decides."""

from __future__ import annotations

from collections.abc import Callable


class FakeStatus:
    """Stands for `envelope.admin.status.Status`; `made` counts its objects.

    `session_change` is to be called when a session has opened or ended. `told` are the reasons of
    `/readyz`, `full` those that `/health` has besides. `broken`: asking for anything fails.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.full: list[str] = []
        self.broken = False
        self.sessions = 0
        self.made = 0
        self.session_change: Callable[[], None] = lambda: None

    def reasons(self) -> list[str]:
        if self.broken:
            raise RuntimeError("a secret detail")
        return self.told

    def reasons_for_balancers(self) -> list[str]:
        return self.reasons() + self.full

    def warnings(self) -> list[str]:
        return []

    def when_sessions_change(self, call: Callable[[], None]) -> None:
        self.session_change = call

    async def read(self) -> dict[str, object]:
        return self.as_object()

    def as_object(self) -> dict[str, object]:
        self.reasons()
        self.made += 1
        return {"now": 1.5, "uptime": 0.5, "sessions": self.sessions, "text": "one\ntwo"}
